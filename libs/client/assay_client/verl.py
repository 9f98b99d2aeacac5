"""Reward functions for verl that ask the reward service.

verl finds them by its configuration:

    reward.custom_reward_function.path=pkg://assay_client.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.target=assay-reward-headless.assay.svc:50051
    +reward.custom_reward_function.reward_kwargs.model=my-reward-model

`compute_score` is for the reward loop, whose calls run side by side; `compute_score_blocking` for managers that take no coroutine
("remote"); `compute_scores` for the manager that hands over whole batches ("batch"). verl tells a reward function the answer and not what
it answers, so the data set carries the prompt in `extra_info` too:

    dataset.map(lambda row: {"extra_info": {**row["extra_info"], "prompt": row["prompt"]}})

verl knows no sample without a reward: where there is none, these raise, and never say 0.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from assay.reward.v1 import reward_pb2
from assay_client.errors import ItemFailed
from assay_client.messages import Turn
from assay_client.reward import RewardClient
from assay_client.reward_async import AsyncRewardClient
from assay_client.reward_requests import score_options, truncation_named

PROMPT_KEY = "prompt"
"""Where in `extra_info` the turns of the prompt are."""
PATIENCE_SECONDS = 120.0
"""Longest time that a service which is away is waited for, unless told otherwise."""


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    target: str,
    model: str = "",
    truncation: str = "error",
    patience_s: float = PATIENCE_SECONDS,
) -> float:
    """The raw score of one answer, for verl's reward loop.

    Args:
        data_source: not used.
        solution_str: the answer.
        ground_truth: not used.
        extra_info: `prompt` in it is the turns that are answered.
        target: of the reward service, as `RewardClient.connect` takes it.
        model: `name` or `name@revision`; empty: the alias "default".
        truncation: what to do with input that is too long: "error", "prompt_left" or "response_right".
        patience_s: longest time that a service which is away is waited for.

    Raises:
        ValueError: there is no prompt.
        AssayClientError: there is no score; says why.

    Example:
        >>> import asyncio, os
        >>> info = {"prompt": [{"role": "user", "content": "Is the earth flat?"}]}
        >>> score = asyncio.run(compute_score("chat", "No.", None, info, target=os.environ["ASSAY_REWARD_TARGET"]))
        >>> type(score).__name__
        'float'
    """
    group = await _async_client(target, patience_s).score_group(
        _prompt(extra_info), [solution_str], model=model, options=_options(truncation)
    )
    return group.scores[0].raw


def compute_score_blocking(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    target: str,
    model: str = "",
    truncation: str = "error",
    patience_s: float = PATIENCE_SECONDS,
) -> float:
    """As `compute_score`, for managers that take no coroutine.

    Example:
        >>> import os
        >>> info = {"prompt": [{"role": "user", "content": "Is the earth flat?"}]}
        >>> score = compute_score_blocking("chat", "No.", None, info, target=os.environ["ASSAY_REWARD_TARGET"])
        >>> type(score).__name__
        'float'
    """
    group = _client(target, patience_s).score_group(_prompt(extra_info), [solution_str], model=model, options=_options(truncation))
    return group.scores[0].raw


def compute_scores(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any]],
    *,
    target: str,
    model: str = "",
    truncation: str = "error",
    patience_s: float = PATIENCE_SECONDS,
) -> list[float]:
    """The raw scores of a batch of answers, in their order, for verl's batch manager; arguments as of `compute_score`.

    Example:
        >>> import os
        >>> info = {"prompt": [{"role": "user", "content": "Is the earth flat?"}]}
        >>> scores = compute_scores(["chat"] * 2, ["No.", "Yes."], [None] * 2, [info] * 2, target=os.environ["ASSAY_REWARD_TARGET"])
        >>> len(scores)
        2
    """
    answered = ([*_prompt(info), {"role": "assistant", "content": text}] for text, info in zip(solution_strs, extra_infos, strict=True))
    rewards: list[float] = []
    for result in _client(target, patience_s).score_stream(answered, model=model, options=_options(truncation)):
        if isinstance(result, ItemFailed):
            raise result
        rewards.append(result.raw)
    return rewards


def _prompt(extra_info: Mapping[str, Any] | None) -> list[Turn]:
    turns = None if extra_info is None else extra_info.get(PROMPT_KEY)
    if turns is None or isinstance(turns, str):
        raise ValueError(
            f"extra_info[{PROMPT_KEY!r}] must be the turns of the prompt, [{{'role': …, 'content': …}}, …], not {turns!r}: verl hands the "
            "prompt to no reward function, so put it there with dataset.map(lambda row: {'extra_info': {**row['extra_info'], "
            f"{PROMPT_KEY!r}: row['prompt']}}}})"
        )
    return list(turns)


def _options(truncation: str) -> reward_pb2.ScoreOptions:
    return score_options(truncation=truncation_named(truncation))


@cache
def _client(target: str, patience_s: float) -> RewardClient:
    return RewardClient.connect(target, patience_s=patience_s)


@cache
def _async_client(target: str, patience_s: float) -> AsyncRewardClient:
    return AsyncRewardClient.connect(target, patience_s=patience_s)
