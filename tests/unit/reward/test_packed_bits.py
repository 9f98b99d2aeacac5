"""What the packed engine promises of a score's bits, where the processor's matrix products keep it: see `models/packed`."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from support.tiny_classifiers import write_classifier

from assay_reward.models import LoadOptions, load_folder
from assay_reward.models.base import Prepared, RewardModel
from assay_reward.models.packed.decoder import ROW_MULTIPLE
from assay_reward.models.packed.linears import Linear, Weights, plain, prepacked


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
    return list(model.score([Prepared(ids=one, prompt_tokens=1, response_tokens=len(one) - 1) for one in sequences]).raw)


@pytest.mark.parametrize("name", ["llama", "llama_one_layer", "mistral_window", "mistral_wide_window", "qwen3", "gemma2", "gemma3"])
def test_a_score_has_the_same_bits_in_any_company_and_however_much_of_it_is_shared(tmp_path: Path, name: str) -> None:
    if not (rows_are_independent(plain) and rows_are_independent(prepacked)):
        pytest.skip("a row of this processor's matrix products depends on the rows beside it")
    model = load_folder(write_classifier(tmp_path / name, name), LoadOptions())
    long = ids(1200, 0)
    batch = [
        *(
            long[:part] + ids(own, part)
            for part, own in ((17, 40), (63, 2), (64, 1), (100, 200), (511, 30), (512, 90), (700, 5), (1030, 160))
        ),
        *(ids(count, count) for count in (1, 3, 31, 64, 65, 200, 640)),
    ]
    alone = {one: score(model, [one])[0] for one in batch}
    for seed in range(4):
        some = random.Random(seed).sample(batch, 9)
        assert score(model, some) == [alone[one] for one in some]
    assert score(model, batch) == [alone[one] for one in batch]
