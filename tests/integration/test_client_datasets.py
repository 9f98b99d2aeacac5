"""Scoring data sets of Hugging Face `datasets`, against the real reward service."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.reward_server import reward_in_thread, write_word_model
from support.tiny_models import write_tiny_reward_model

from assay_client import RewardClient
from assay_client.datasets import DatasetScorer, score_dataset
from assay_client.errors import Aborted, Unavailable

datasets = pytest.importorskip("datasets")

QUESTION = [{"role": "user", "content": "How do I bake bread?"}]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {"tiny": write_tiny_reward_model(folder / "tiny"), "words": write_word_model(folder / "words")}


@pytest.fixture
def target(models: dict[str, Path], tmp_path: Path) -> Iterator[str]:
    with reward_in_thread(tmp_path / "service", models) as where:
        yield where


def raw(target: str, *answers: str, model: str = "") -> list[float]:
    with RewardClient.connect(target) as reward:
        return [score.raw for score in reward.score_group(QUESTION, answers, model=model).scores]


def test_pairs_get_both_rewards_and_their_margin_in_each_of_their_forms(target: str) -> None:
    good, bad = "Mix flour and water.", "No 🍞."
    turns = {text: [{"role": "assistant", "content": text}] for text in (good, bad)}
    forms = {
        "text": {"prompt": QUESTION, "chosen": good, "rejected": bad},
        "turns": {"prompt": QUESTION, "chosen": turns[good], "rejected": turns[bad]},
        "whole": {"chosen": QUESTION + turns[good], "rejected": QUESTION + turns[bad]},
        "strings": {"prompt": "Q: How do I bake bread?", "chosen": good, "rejected": bad},
    }
    left, right = raw(target, good, bad)
    with DatasetScorer(target, to_conversation=lambda text: [{"role": "user", "content": text.removeprefix("Q: ")}]) as scorer:
        for name, row in forms.items():
            scored = datasets.Dataset.from_list([row] * 3).map(scorer, batched=True, batch_size=2)
            wanted = {"chosen_reward": left, "rejected_reward": right, "margin": left - right, "reward_error": ""}
            assert [{key: one[key] for key in wanted} for one in scored] == [wanted] * 3, name


def test_a_row_without_a_score_says_why_and_the_rest_have_theirs(target: str) -> None:
    rows = [{"prompt": QUESTION, "response": text} for text in ["word " * 2000] * 2 + ["fine"] * 3]
    with DatasetScorer(target) as scorer:
        scored = datasets.Dataset.from_list(rows).map(scorer, batched=True, batch_size=2)
    assert [math.isnan(reward) for reward in scored["reward"]] == [True, True, False, False, False]
    assert [bool(re.search("response: .*tokens", error)) for error in scored["reward_error"]] == [True, True, False, False, False]
    assert scored["reward"][4] == raw(target, "fine")[0]


def test_columns_and_prompts_are_not_guessed(target: str) -> None:
    with DatasetScorer(target) as scorer:
        with pytest.raises(ValueError, match="nothing to score in .*answer"):
            scorer({"prompt": [QUESTION], "answer": ["x"]})
        with pytest.raises(ValueError, match="to_conversation"):
            scorer({"prompt": ["Q"], "response": ["x"]})


def test_a_model_that_is_replaced_ends_the_scoring(target: str) -> None:
    with DatasetScorer(target) as scorer, RewardClient.connect(target) as reward:
        reward.set_alias("default", "words")
        with pytest.raises(Aborted, match="name a revision"):
            scorer({"prompt": [QUESTION], "response": ["x"]})


def test_what_was_scored_before_the_service_died_is_not_scored_again_elsewhere(models: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps({"prompt": QUESTION, "response": f"answer {number}"}) + "\n" for number in range(300)))
    rows = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))

    calls: list[int] = []

    class Watched(DatasetScorer):
        def __call__(self, batch: dict[str, list]) -> dict[str, list]:
            if len(calls) == 2 and not again:
                self._connection["patience_s"] = 0
                self.close()
                stop.close()
            calls.append(len(batch["response"]))
            return super().__call__(batch)

    again = False
    with ExitStack() as stop:
        target = stop.enter_context(reward_in_thread(tmp_path / "first", models))
        with Watched(target, "words") as scorer, pytest.raises(Unavailable):
            score_dataset(rows, scorer, rows_per_part=100)
    assert calls == [100, 100, 100]

    again = True
    calls.clear()
    with reward_in_thread(tmp_path / "second", models) as target, Watched(target, "words") as scorer:
        scored = score_dataset(rows, scorer, rows_per_part=100)
        assert calls == [100]
        assert score_dataset(rows, scorer, rows_per_part=100)["reward"][:] == scored["reward"][:]
        assert calls == [100]
        with Watched(target, "tiny") as other:
            assert score_dataset(rows, other, rows_per_part=100)["reward"][:] != scored["reward"][:]
        assert calls == [100] * 4
        assert scored["reward"][250:252] == raw(target, "answer 250", "answer 251", model="words")
