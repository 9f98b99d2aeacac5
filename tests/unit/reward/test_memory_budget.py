import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_models import write_tiny_causal_lm, write_tiny_reward_model

from assay_kit.errors import InvalidArgument, NotFound
from assay_reward.loaded import State
from assay_reward.memory_budget import MemoryBudget, OverBudget
from assay_reward.models import LoadOptions, expected_bytes, load_folder
from assay_reward.models.memory import held_bytes
from assay_reward.store import ModelStore

KIB = 1024


def new_store(tmp_path: Path, max_bytes: int, *, evict: bool = False) -> ModelStore:
    store = ModelStore(
        remembered=tmp_path / "state" / "models.json",
        cache=tmp_path / "cache",
        options=LoadOptions(),
        budget=MemoryBudget(max_bytes=max_bytes, evict=evict),
    )
    store.restore()
    return store


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    home = tmp_path_factory.mktemp("models")
    return [str(write_tiny_reward_model(home / f"m{seed}", seed)) for seed in range(4)]


@pytest.fixture(scope="module")
def size(folders: list[str]) -> int:
    """Of one model in memory; all are alike."""
    return held_bytes(load_folder(Path(folders[0]), LoadOptions()))


def states(store: ModelStore) -> dict[str, State]:
    return {entry.name: entry.state for entry in store.entries()}


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "bert"])
def test_what_the_headers_say_is_what_the_weights_take(tmp_path: Path, family: str) -> None:
    folder = write_tiny_reward_model(tmp_path / family, family=family, hidden_size=64)  # type: ignore[arg-type]
    options = LoadOptions()
    expected, held = expected_bytes(folder, options), held_bytes(load_folder(folder, options))
    assert expected == sum(weight.nbytes for weight in load_file(folder / "model.safetensors").values())
    assert expected <= held < 1.15 * expected + 600 * KIB  # positions, masks and repacked weights besides
    assert expected_bytes(folder, LoadOptions(dtype="bfloat16")) == pytest.approx(expected / 2, rel=0.01)


def test_shards_are_summed_and_counted_once(tmp_path: Path) -> None:
    folder = write_tiny_reward_model(tmp_path / "rm")
    whole = expected_bytes(folder, LoadOptions())
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, own in shards.items():
        save_file({name: weights[name] for name in own}, folder / shard)
    index = {"weight_map": {name: shard for shard, own in shards.items() for name in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
    assert expected_bytes(folder, LoadOptions()) == whole


def test_types_that_stay_as_they_are_are_not_scaled(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file({"w": torch.zeros(10, dtype=torch.bfloat16), "ids": torch.zeros(10, dtype=torch.int64)}, tmp_path / "model.safetensors")
    assert expected_bytes(tmp_path, LoadOptions(dtype="float32")) == 10 * 4 + 10 * 8


def test_a_model_made_of_others_takes_what_they_take(tmp_path: Path) -> None:
    one, other = write_tiny_reward_model(tmp_path / "one"), write_tiny_reward_model(tmp_path / "other", hidden_size=64)
    policy, reference = write_tiny_causal_lm(tmp_path / "policy"), write_tiny_causal_lm(tmp_path / "reference", 1)
    (tmp_path / "both").mkdir()
    members = [{"name": "one", "uri": str(one)}, {"name": "other", "uri": str(other)}]
    (tmp_path / "both" / "ensemble.json").write_text(json.dumps({"members": members}))
    (tmp_path / "dpo").mkdir()
    declared = {"policy": str(policy), "reference": str(reference), "beta": 0.1, "length_normalised": False}
    (tmp_path / "dpo" / "implicit_reward.json").write_text(json.dumps(declared))
    options = LoadOptions()
    for folder, parts in ((tmp_path / "both", (one, other)), (tmp_path / "dpo", (policy, reference))):
        expected = expected_bytes(folder, options)
        assert expected == sum(expected_bytes(part, options) for part in parts) > 0
        assert held_bytes(load_folder(folder, options)) >= expected


def test_a_model_that_computes_elsewhere_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "generative_judge.json").write_text(json.dumps({"base_url": "http://localhost:1/v1", "model": "judge", "mode": "pairwise"}))
    assert expected_bytes(tmp_path, LoadOptions()) == 0


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, (10).to_bytes(8, "little") + b'{"w": {}}'])
def test_a_file_without_a_header_is_named(tmp_path: Path, content: bytes) -> None:
    folder = write_tiny_reward_model(tmp_path / "rm")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InvalidArgument, match="model.safetensors has no header"):
        expected_bytes(folder, LoadOptions())


def test_a_model_over_the_budget_is_refused_with_what_is_there_and_what_would_help(tmp_path: Path, folders: list[str], size: int) -> None:
    store = new_store(tmp_path, 2 * size + KIB)
    for name in ("a", "b"):
        assert store.load(name, folders[0]).loaded.memory_bytes == size  # type: ignore[union-attr]
    with pytest.raises(OverBudget) as caught:
        store.load("c", folders[1])
    said = caught.value.message
    for part in (
        "model c takes",
        "memory budget of",
        "unload a model such as a",
        "raise the budget",
        "ASSAY_REWARD_EVICT=true",
        "(alias default)",
    ):
        assert part in said
    assert caught.value.retry_after_seconds is None
    assert states(store) == {"a": State.READY, "b": State.READY}
    store.unload("b", "", drain_seconds=0)
    assert store.load("c", folders[1]).state is State.READY


def test_what_cannot_fit_at_all_says_so(tmp_path: Path, folders: list[str], size: int) -> None:
    with pytest.raises(OverBudget, match="more than all of the memory budget"):
        new_store(tmp_path, size // 2, evict=True).load("a", folders[0])


def test_new_content_of_a_name_needs_room_beside_the_old(tmp_path: Path, folders: list[str], size: int) -> None:
    store = new_store(tmp_path, 2 * size - KIB, evict=True)
    before = store.load("a", folders[0])
    with pytest.raises(OverBudget, match="stays"):
        store.load("a", folders[1])
    assert store.lease("a", "").loaded is before.loaded


def test_a_replaced_model_counts_until_its_last_call_ends(tmp_path: Path, folders: list[str], size: int) -> None:
    store = new_store(tmp_path, 2 * size + KIB)
    store.load("a", folders[0])
    lease = store.lease("a", "")
    store.load("a", folders[1])
    with pytest.raises(OverBudget, match="calls in flight"):
        store.load("b", folders[2])
    lease.release()
    store.load("b", folders[2])


def test_the_least_recently_used_leaves_where_that_is_allowed(tmp_path: Path, folders: list[str], size: int) -> None:
    store = new_store(tmp_path, 3 * size + KIB, evict=True)
    for index, name in enumerate("abc"):  # a is the default
        store.load(name, folders[index])
    store.lease("b", "").release()
    store.load("d", folders[3])
    assert states(store) == {"a": State.READY, "b": State.READY, "c": State.EVICTED, "d": State.READY}
    assert store.entry("c", "").failure == "left memory to make room for d; load it again to use it"


def test_neither_an_alias_nor_calls_in_flight_are_evicted_and_where_that_is_not_enough_nobody_is(
    tmp_path: Path, folders: list[str], size: int
) -> None:
    store = new_store(tmp_path, 3 * size + KIB, evict=True)
    for index, name in enumerate("abc"):
        store.load(name, folders[index])
    lease = store.lease("b", "")
    store.set_alias("judge", "c", "")
    with pytest.raises(OverBudget, match="what may leave is not enough"):
        store.load("d", folders[3])
    store.set_alias("judge", "a", "")
    big = write_tiny_reward_model(tmp_path / "big", hidden_size=96)
    with pytest.raises(OverBudget, match="what may leave is not enough|more than all"):
        store.load("big", str(big))
    assert set(states(store).values()) == {State.READY}
    lease.release()
    store.load("d", folders[3])
    assert states(store)["b"] is State.READY and states(store)["c"] is State.EVICTED  # b was asked for later


def test_an_evicted_model_is_found_again_only_by_loading_it(tmp_path: Path, folders: list[str], size: int) -> None:
    store = new_store(tmp_path, 2 * size + KIB, evict=True)
    for index, name in enumerate("abc"):
        store.load(name, folders[index])
    for ask in (lambda: store.lease("b", ""), lambda: store.set_alias("judge", "b", "")):
        with pytest.raises(NotFound, match="b is not in memory: it left memory to make room for c; load it again"):
            ask()
    again = new_store(tmp_path, 2 * size + KIB, evict=True)
    assert states(again) == {"a": State.READY, "b": State.EVICTED, "c": State.READY}
    again.load("b", folders[1])
    assert states(again) == {"a": State.READY, "b": State.READY, "c": State.EVICTED}
    again.unload("c", "", drain_seconds=0)
    assert set(states(again)) == {"a", "b"}


def test_a_start_with_a_smaller_budget_loads_what_has_an_alias_first(tmp_path: Path, folders: list[str], size: int) -> None:
    store = new_store(tmp_path, 0)
    for index, name in enumerate("abc"):
        store.load(name, folders[index])
    store.set_alias("default", "c", "")
    again = new_store(tmp_path, size + KIB, evict=True)
    assert states(again) == {"a": State.FAILED, "b": State.FAILED, "c": State.READY}
    assert "memory budget" in again.entry("a", "").failure
