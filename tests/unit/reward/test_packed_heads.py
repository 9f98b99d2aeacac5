"""Several heads on the packed forward: each label as by the family's own forward, and what sequences share computed once."""

import json
import random
from pathlib import Path

import pytest
import torch
from support.tiny_classifiers import write_classifier
from transformers import AutoModelForSequenceClassification

from assay_reward.models import LoadOptions, load_folder
from assay_reward.models.base import Computed, Prepared
from assay_reward.models.packed.forward import PackedForward
from assay_reward.models.reward_heads import RewardHeads

WEIGHTS = {"helpful": 0.65, "safe": 0.35, "long": -0.2}
FAMILIES = ["llama", "mistral_window", "qwen2", "qwen3", "gemma2", "gemma3"]


def ids(count: int, seed: int) -> tuple[int, ...]:
    chosen = random.Random(seed)
    return tuple(chosen.randrange(3, 380) for _ in range(count))


PROMPT = ids(90, 1)
BATCH = [PROMPT + ids(40, 2), PROMPT + ids(3, 3), PROMPT[:50] + ids(30, 4), ids(1, 5), ids(70, 6)]


def scored(model: RewardHeads, sequences: list[tuple[int, ...]]) -> Computed:
    return model.score([Prepared(ids=one, prompt_tokens=1, response_tokens=len(one) - 1) for one in sequences])


def several(folder: Path, name: str) -> RewardHeads:
    write_classifier(folder, name, labels=3)
    (folder / "reward_heads.json").write_text(json.dumps({"heads": WEIGHTS}))
    model = load_folder(folder, LoadOptions())
    assert isinstance(model, RewardHeads)
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_are_those_of_the_familys_own_forward_with_the_prompt_computed_once(tmp_path: Path, name: str) -> None:
    model = several(tmp_path / name, name)
    assert isinstance(model._classifier._forward, PackedForward)
    found = scored(model, BATCH)
    assert found.computed_tokens < sum(map(len, BATCH)) - 100
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / name, dtype=torch.float32).eval()
    for sequence, members, raw in zip(BATCH, found.members, found.raw, strict=True):
        with torch.no_grad():
            wanted = plain(torch.tensor([sequence])).logits[0].double().tolist()
        assert [member.raw for member in members] == pytest.approx(wanted, rel=1e-4, abs=1e-5)
        assert raw == pytest.approx(sum(weight * one for weight, one in zip(WEIGHTS.values(), wanted, strict=True)), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_heads_of_a_sequence_are_the_same_alone_and_in_any_company(tmp_path: Path, name: str) -> None:
    model = several(tmp_path / name, name)
    alone = {one: scored(model, [one]).members[0] for one in BATCH}
    for seed in range(2):
        some = random.Random(seed).sample(BATCH, 4)
        for one, members in zip(some, scored(model, some).members, strict=True):
            assert [member.raw for member in members] == pytest.approx([member.raw for member in alone[one]], rel=1e-5, abs=1e-6)
