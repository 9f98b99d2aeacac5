"""The result cache: what counts as the same input, and what goes when there is no room."""

from pathlib import Path

import numpy as np
import pytest

from assay_data.bag_of_words import BagOfWordsModel
from assay_data.fingerprints import Fingerprint
from assay_reward.engine import Scored
from assay_reward.loaded import LoadedModel
from assay_reward.models import LoadOptions, load_folder
from assay_reward.models.base import MemberScore, Prepared
from assay_reward.result_cache import ResultCache


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedModel:
    BagOfWordsModel(vocabulary=("bread",), idf=np.ones(1), weights=np.ones(1), mean=0.0, std=1.0).save(tmp_path)
    hashes = Fingerprint(weights_sha256="w", tokenizer_sha256="t", chat_template_sha256="c", fingerprint="f")
    model = load_folder(tmp_path, LoadOptions())
    return LoadedModel(name="rm", revision="1", uri="", model=model, fingerprint=hashes, loaded_at=0.0, memory_bytes=0)


def tokens(*ids: int, prompt: int = 1) -> Prepared:
    return Prepared(ids=ids, prompt_tokens=prompt, response_tokens=len(ids) - prompt)


def test_equal_inputs_are_found_with_all_that_was_computed(loaded: LoadedModel) -> None:
    part = ResultCache(max_bytes=10_000).of(loaded)
    assert part is not None
    members = (MemberScore(name="a", raw=1.0), MemberScore(name="b", raw=2.0))
    part.keep([Scored(raw=0.1 + 0.2, prepared=tokens(1, 2, 3), std=0.7, members=members)])
    found = part.find([tokens(1, 2, 3), tokens(1, 2, 4)])
    assert found == {tokens(1, 2, 3): Scored(raw=0.1 + 0.2, prepared=tokens(1, 2, 3), std=0.7, members=members, from_cache=True)}


@pytest.mark.parametrize(
    "other", [tokens(1, 2, 3, prompt=2), tokens(1, 2), tokens(1, 2, 3, 0), Prepared(text="1 2 3", prompt_tokens=1, response_tokens=2)]
)
def test_inputs_that_differ_in_any_field_are_not_mixed_up(loaded: LoadedModel, other: Prepared) -> None:
    part = ResultCache(max_bytes=10_000).of(loaded)
    assert part is not None
    part.keep([Scored(raw=1.0, prepared=tokens(1, 2, 3))])
    assert part.find([other]) == {}


def test_the_least_recently_used_go_first_and_the_room_is_kept(loaded: LoadedModel) -> None:
    cache = ResultCache(max_bytes=3 * 320)
    part = cache.of(loaded)
    assert part is not None
    for value in (1, 2, 3):
        part.keep([Scored(raw=float(value), prepared=tokens(0, value))])
    assert part.find([tokens(0, 1)])
    part.keep([Scored(raw=4.0, prepared=tokens(0, 4))])
    assert [bool(part.find([tokens(0, value)])) for value in (1, 2, 3, 4)] == [True, False, True, True]
    for value in range(1000):
        part.keep([Scored(raw=float(value), prepared=tokens(1, value))])
        assert cache.held_bytes <= cache.max_bytes and cache.entries <= 3


def test_a_score_larger_than_the_room_is_not_kept(loaded: LoadedModel) -> None:
    part = ResultCache(max_bytes=400).of(loaded)
    assert part is not None
    part.keep([Scored(raw=1.0, prepared=tokens(0, 1), members=(MemberScore(name="a", raw=1.0),))])
    assert part.find([tokens(0, 1)]) == {}


def test_without_room_there_is_no_cache(loaded: LoadedModel) -> None:
    assert ResultCache(max_bytes=0).of(loaded) is None
