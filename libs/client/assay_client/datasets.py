"""Scores data sets of Hugging Face `datasets`: preference pairs get chosen_reward, rejected_reward and margin, answers get reward."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

from assay.reward.v1 import reward_pb2
from assay_client.calls import DEFAULT_TIMEOUT_SECONDS
from assay_client.channels import Security
from assay_client.errors import Aborted, ItemFailed
from assay_client.messages import Turn
from assay_client.reward import RewardClient
from assay_client.reward_requests import score_options
from assay_client.scores import Score, ScoredBatch

ROWS_PER_PART = 10_000
"""Rows of a part of `score_dataset`, unless told otherwise."""

Column = Sequence[Any]


class DatasetScorer:
    """A function for `Dataset.map(..., batched=True)`.

    Rows with `chosen` and `rejected` get `chosen_reward`, `rejected_reward` and `margin`, their difference; rows with `completion` or
    `response` get `reward`. An answer is text, or turns; a prompt is turns, or text where `to_conversation` is given. Without a prompt,
    `chosen` and `rejected` are whole conversations. A row that cannot be scored has NaN, and `reward_error` says why; it is "" elsewhere.

    The model is looked up when the scorer is made, and one that is replaced meanwhile ends the scoring: a column is of one model.

    Example:
        >>> import os
        >>> from datasets import Dataset
        >>> question = [{"role": "user", "content": "Is the earth flat?"}]
        >>> pairs = Dataset.from_list([{"prompt": question, "chosen": "No.", "rejected": "Yes."}])
        >>> with DatasetScorer(os.environ["ASSAY_REWARD_TARGET"]) as scorer:
        ...     scored = pairs.map(scorer, batched=True)
        >>> scored.column_names
        ['prompt', 'chosen', 'rejected', 'chosen_reward', 'rejected_reward', 'margin', 'reward_error']
    """

    def __init__(
        self,
        target: str,
        model: str = "",
        *,
        options: reward_pb2.ScoreOptions | None = None,
        to_conversation: Callable[[str], Sequence[Turn]] | None = None,
        patience_s: float = 120.0,
        timeout_s: float = DEFAULT_TIMEOUT_SECONDS,
        security: Security | None = None,
    ) -> None:
        """Asks the service for the model.

        Args:
            target: of the reward service, as `RewardClient.connect` takes it.
            model: `name` or `name@revision`; empty: the alias "default".
            options: see `assay_client.reward.score_options`; default: the raw score, refusing what is too long.
            to_conversation: turns of a prompt that is a string.
            patience_s: longest time that a service which is away is waited for.
            timeout_s: deadline of an attempt.
            security: TLS and token; None: neither.

        Raises:
            AssayClientError: the service is away, or does not know the model.
        """
        self._connection = {"target": target, "patience_s": patience_s, "timeout_s": timeout_s, "security": security}
        self._options = (score_options() if options is None else options).SerializeToString(deterministic=True)
        self._to_conversation = to_conversation
        self._model = model
        self._client: RewardClient | None = None
        provenance = self._connected().get_model(model).provenance
        self.fingerprint = provenance.fingerprint
        """Of the model."""
        self.name = f"{provenance.model}@{provenance.revision}"
        """Name and revision of the model."""
        self.dtype = provenance.dtype
        """Type of its weights where it is served."""

    def __call__(self, batch: Mapping[str, Column]) -> dict[str, list[Any]]:
        """Scores the rows of a batch.

        Raises:
            ValueError: the columns are none of those that can be scored, or a prompt is text and `to_conversation` is not given.
            Aborted: the model was replaced.
        """
        prompts = batch.get("prompt")
        if "chosen" in batch and "rejected" in batch:
            chosen = self._conversations(prompts, batch["chosen"])
            rejected = self._conversations(prompts, batch["rejected"])
            # Each pair side by side: the service computes what they share once.
            results = self._score([one for pair in zip(chosen, rejected, strict=True) for one in pair]).results
            left, right = results[0::2], results[1::2]
            return {
                "chosen_reward": [_value(one) for one in left],
                "rejected_reward": [_value(one) for one in right],
                "margin": [_value(one) - _value(other) for one, other in zip(left, right, strict=True)],
                "reward_error": [_errors(chosen=one, rejected=other) for one, other in zip(left, right, strict=True)],
            }
        answers = next((name for name in ("completion", "response") if name in batch), None)
        if answers is None:
            raise ValueError(f"there is nothing to score in {sorted(batch)}: chosen and rejected are wanted, or completion, or response")
        results = self._score(self._conversations(prompts, batch[answers])).results
        return {"reward": [_value(one) for one in results], "reward_error": [_errors(**{answers: one}) for one in results]}

    def close(self) -> None:
        """Closes the channel."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> DatasetScorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    @property
    def identity(self) -> tuple[Any, ...]:
        """All that the scores depend on: the model and how it is asked, and not where it is served."""
        return self.fingerprint, self.dtype, self._options, self._to_conversation

    def _connected(self) -> RewardClient:
        if self._client is None:
            self._client = RewardClient.connect(**self._connection)  # type: ignore[arg-type]
        return self._client

    def _score(self, conversations: Sequence[Sequence[Turn]]) -> ScoredBatch:
        options = reward_pb2.ScoreOptions.FromString(self._options)
        batch = self._connected().score_batch(conversations, model=self._model, options=options)
        if batch.provenance.fingerprint != self.fingerprint:
            raise Aborted(
                grpc.StatusCode.ABORTED,
                f"the reward model is now {batch.provenance.model}@{batch.provenance.revision}, not {self.name}; name a revision, as in "
                "model='name@revision'",
            )
        return batch

    def _conversations(self, prompts: Column | None, answers: Column) -> list[list[Turn]]:
        contexts = [[]] * len(answers) if prompts is None else [self._turns(prompt) for prompt in prompts]
        return [
            [*context, {"role": "assistant", "content": answer}] if isinstance(answer, str) else [*context, *answer]
            for context, answer in zip(contexts, answers, strict=True)
        ]

    def _turns(self, prompt: str | Sequence[Turn]) -> Sequence[Turn]:
        if not isinstance(prompt, str):
            return prompt
        if self._to_conversation is None:
            raise ValueError(
                "the prompts are strings, and how to read turns out of them is not guessed: give DatasetScorer(to_conversation=...), "
                "or a dataset whose prompts are lists of {'role': …, 'content': …}"
            )
        return self._to_conversation(prompt)


def score_dataset(dataset: Any, scorer: DatasetScorer, *, rows_per_part: int = ROWS_PER_PART, batch_size: int = 1000) -> Any:
    """Scores a `datasets.Dataset` in parts, each kept in the cache of `datasets` when it is done, with its progress bar.

    Called again with the same rows and the same model, wherever the service is by then, it reads the parts that are done and scores
    only the rest: a run that was killed loses at most one part. The cache is on disk where the data set is; one that was made in memory
    is scored anew.

    Args:
        dataset: the rows; columns as `DatasetScorer` says.
        scorer: the model.
        rows_per_part: rows of a part.
        batch_size: rows handed to the scorer at a time.

    Returns:
        The data set with the new columns.

    Example:
        >>> import os
        >>> from datasets import Dataset
        >>> question = [{"role": "user", "content": "Is the earth flat?"}]
        >>> answers = Dataset.from_list([{"prompt": question, "response": f"No, {number}."} for number in range(50)])
        >>> with DatasetScorer(os.environ["ASSAY_REWARD_TARGET"]) as scorer:
        ...     scored = score_dataset(answers, scorer, rows_per_part=20)
        >>> scored.column_names, len(scored)
        (['prompt', 'response', 'reward', 'reward_error'], 50)
    """
    from datasets import concatenate_datasets
    from datasets.fingerprint import Hasher

    parts = []
    for start in range(0, max(len(dataset), 1), rows_per_part):
        part = dataset.select(range(start, min(start + rows_per_part, len(dataset))))
        parts.append(
            part.map(
                scorer,
                batched=True,
                batch_size=batch_size,
                desc=f"Scoring by {scorer.name}, rows from {start} of {len(dataset)}",
                new_fingerprint=Hasher.hash([part._fingerprint, scorer.identity]),
            )
        )
    return concatenate_datasets(parts)


def _value(result: Score | ItemFailed) -> float:
    return math.nan if isinstance(result, ItemFailed) else result.value


def _errors(**results: Score | ItemFailed) -> str:
    return "; ".join(f"{column}: {result.message}" for column, result in results.items() if isinstance(result, ItemFailed))
