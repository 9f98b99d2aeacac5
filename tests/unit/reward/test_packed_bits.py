"""What the packed engine promises of a score's bits, where the processor's matrix products keep it: see `models/packed`."""

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from support.tiny_classifiers import ENCODERS, write_classifier, write_language_model

from assay_reward.models import LoadOptions, load_folder
from assay_reward.models.base import Prepared, RewardModel
from assay_reward.models.packed.linears import ROW_MULTIPLE, Linear, Weights, plain, prepacked


def rows_are_independent(make: Callable[[Weights], Linear]) -> bool:
    """Whether a row of a product has the same bits however many rows are beside it, on this processor."""
    torch.manual_seed(0)
    rows, linear = torch.randn(512, 32), make(Weights(weight=torch.randn(88, 32)))
    with torch.inference_mode():
        whole = linear(rows)
        return all(torch.equal(linear(rows[:count].contiguous()), whole[:count]) for count in range(ROW_MULTIPLE, 513, ROW_MULTIPLE))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ids(count: int, seed: int) -> tuple[int, ...]:
    chosen = random.Random(seed)
    return tuple(chosen.randrange(3, 380) for _ in range(count))


def score(model: RewardModel, sequences: list[tuple[int, ...]]) -> list[float]:
    """Of each, all from its ninth token on being the response where that makes a difference."""
    borders = [min(8, len(one) - 1) for one in sequences]
    items = [Prepared(ids=one, prompt_tokens=at, response_tokens=len(one) - at) for one, at in zip(sequences, borders, strict=True)]
    return list(model.score(items).raw)


def write_heads(folder: Path) -> Path:
    write_classifier(folder, "qwen2", labels=3)
    (folder / "reward_heads.json").write_text(json.dumps({"heads": {"a": 0.5, "b": 0.3, "c": 0.2}}))
    return folder


def write_implicit(folder: Path, name: str) -> Path:
    for seed, part in enumerate(("policy", "reference")):
        write_language_model(folder / part, name, seed, tie_word_embeddings=name == "gemma2")
    (folder / "implicit_reward.json").write_text(json.dumps({"policy": "./policy", "reference": "./reference", "beta": 0.1}))
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    **{
        name: partial(write_classifier, name=name)
        for name in ("llama", "llama_one_layer", "mistral_window", "mistral_wide_window", "qwen3", "gemma2", "gemma3", *ENCODERS)
    },
    "several heads": write_heads,
    "implicit llama": partial(write_implicit, name="llama"),
    "implicit gemma2": partial(write_implicit, name="gemma2"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_score_has_the_same_bits_in_any_company_and_however_much_of_it_is_shared(tmp_path: Path, name: str) -> None:
    if not (rows_are_independent(plain) and rows_are_independent(prepacked)):
        pytest.skip("a row of this processor's matrix products depends on the rows beside it")
    model = load_folder(WRITERS[name](tmp_path / name), LoadOptions())
    long = ids(1200, 0)
    batch = [
        *(
            long[:part] + ids(own, part)
            for part, own in ((17, 40), (63, 2), (64, 1), (100, 200), (511, 30), (512, 90), (700, 5), (1030, 160))
        ),
        *(ids(count, count) for count in (1, 3, 31, 64, 65, 200, 640) if count > 1 or not name.startswith("implicit")),
    ]
    alone = {one: score(model, [one])[0] for one in batch}
    for seed in range(4):
        some = random.Random(seed).sample(batch, 9)
        assert score(model, some) == [alone[one] for one in some]
    assert score(model, batch) == [alone[one] for one in batch]
