import json
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.tiny_models import write_tiny_reward_model

from assay_data.bag_of_words import BagOfWordsModel
from assay_data.errors import DataError
from assay_kit.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from assay_reward.loaded import State
from assay_reward.models import AnyModel, LoadOptions, load_folder
from assay_reward.models.bag_of_words import BagOfWords
from assay_reward.models.base import Computed, Prepared
from assay_reward.store import ModelStore


def bag(folder: Path, weight: float = 1.0) -> str:
    model = BagOfWordsModel(vocabulary=("bread",), idf=np.ones(1), weights=np.array([weight]), mean=0.0, std=1.0)
    model.save(folder)
    return str(folder)


def new_store(tmp_path: Path) -> ModelStore:
    return ModelStore(remembered=tmp_path / "state" / "models.json", cache=tmp_path / "cache", options=LoadOptions())


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    store = new_store(tmp_path)
    store.restore()
    return store


def test_nothing_is_told_before_the_models_are_back(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    for ask in (store.entries, lambda: store.lease("", ""), lambda: store.load("gold", bag(tmp_path / "gold"))):
        with pytest.raises(Unavailable):
            ask()


def test_the_first_model_is_the_default_until_the_alias_is_moved(store: ModelStore, tmp_path: Path) -> None:
    store.load("one", bag(tmp_path / "one", 1.0))
    store.load("two", bag(tmp_path / "two", 2.0))
    assert store.lease("", "").loaded.name == store.lease("default", "").loaded.name == "one"
    previous, current = store.set_alias("default", "two", "")
    assert previous is not None and previous.name == "one" and current.name == "two"
    assert store.lease("", "").loaded.name == "two"
    assert store.entry("two", "").aliases == ("default",)


def test_the_revision_is_the_fingerprint_unless_one_is_given(store: ModelStore, tmp_path: Path) -> None:
    entry = store.load("gold", bag(tmp_path / "gold"))
    assert entry.revision == entry.fingerprint[:12]
    assert store.load("named", bag(tmp_path / "gold"), "v1").revision == "v1"
    assert store.lease("named", "v1").loaded.revision == "v1"
    with pytest.raises(NotFound, match="at revision v1, not v2"):
        store.lease("named", "v2")


def test_loading_the_same_again_changes_nothing(store: ModelStore, tmp_path: Path) -> None:
    uri = bag(tmp_path / "gold")
    first = store.load("gold", uri)
    assert store.load("gold", uri).loaded is first.loaded
    assert store.load("gold", uri, first.revision).loaded is first.loaded


def test_other_content_under_the_name_takes_its_place_while_old_calls_end_with_the_old(store: ModelStore, tmp_path: Path) -> None:
    store.load("gold", bag(tmp_path / "gold", 1.0))
    old = store.lease("gold", "")
    store.load("gold", bag(tmp_path / "gold", 2.0))
    new = store.lease("gold", "")
    assert old.loaded.revision != new.loaded.revision
    assert old.loaded.model is not new.loaded.model
    assert len(store.entries()) == 1


def test_a_load_that_fails_leaves_what_was_there(store: ModelStore, tmp_path: Path) -> None:
    before = store.load("gold", bag(tmp_path / "gold")).loaded
    (tmp_path / "gold" / "bag_of_words.json").write_text("{}")
    with pytest.raises(InvalidArgument):
        store.load("gold", str(tmp_path / "gold"))
    assert store.lease("gold", "").loaded is before
    with pytest.raises(NotFound):
        store.load("other", str(tmp_path / "nowhere"))
    assert [entry.name for entry in store.entries()] == ["gold"]


@pytest.mark.parametrize(
    ("name", "uri", "revision", "field"),
    [
        ("", "gold", "", "name"),
        ("with space", "gold", "", "name"),
        ("default", "gold", "", "name"),
        ("x" * 129, "gold", "", "name"),
        ("gold", "gold", "a/b", "revision"),
        ("gold", "", "", "uri"),
        ("gold", "nowhere", "", "uri"),
        ("gold", "gold/bag_of_words.json", "", "uri"),
        ("gold", "file://otherhost/gold", "", "uri"),
        ("gold", "nosuchscheme://bucket/gold", "", "uri"),
        ("gold", "owner/not-in-the-hub", "", "uri"),
        ("gold", "hf://owner/not-in-the-hub@v1", "", "uri"),
        ("gold", "file:///nowhere/at/all", "", "uri"),
    ],
)
def test_a_bad_name_or_uri_is_named(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, uri: str, revision: str, field: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    bag(tmp_path / "gold")
    with pytest.raises((InvalidArgument, NotFound)) as caught:
        store.load(name, uri, revision)
    assert [violation[0] for violation in caught.value.violations] == [field]
    assert store.entries() == []


def test_a_relative_path_and_a_file_uri_are_the_same_model(store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bag(tmp_path / "gold")
    relative = store.load("relative", "gold")
    assert relative.uri == str(tmp_path / "gold")
    assert store.load("absolute", f"file://{tmp_path}/gold").fingerprint == relative.fingerprint


def test_a_new_start_finds_the_same_models_and_aliases(store: ModelStore, tmp_path: Path) -> None:
    store.load("one", bag(tmp_path / "one", 1.0), "v7")
    store.load("two", str(write_tiny_reward_model(tmp_path / "two")))
    store.set_alias("default", "two", "")
    again = new_store(tmp_path)
    again.restore()
    assert [(e.name, e.revision, e.uri, e.fingerprint, e.aliases, e.state) for e in again.entries()] == [
        (e.name, e.revision, e.uri, e.fingerprint, e.aliases, e.state) for e in store.entries()
    ]
    assert again.lease("", "").loaded.name == "two"


def test_a_model_whose_content_changed_meanwhile_is_not_served_under_its_old_name(store: ModelStore, tmp_path: Path) -> None:
    store.load("gold", bag(tmp_path / "gold", 1.0))
    store.load("other", bag(tmp_path / "other", 3.0))
    bag(tmp_path / "gold", 2.0)
    for _ in range(2):  # a failed model is remembered too
        again = new_store(tmp_path)
        again.restore()
        assert again.entry("gold", "").state is State.FAILED
        assert "load it again" in again.entry("gold", "").failure
        with pytest.raises(FailedPrecondition, match="could not be loaded"):
            again.lease("gold", "")
        again.load("other", bag(tmp_path / "other", 4.0))
    again.load("gold", str(tmp_path / "gold"))
    assert again.lease("gold", "").loaded.fingerprint.fingerprint == again.entry("gold", "").fingerprint


def test_a_file_that_does_not_hold_models_stops_the_start(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    (tmp_path / "state").mkdir()
    nameless = {"format": "assay.reward.models/1", "models": [{}], "aliases": {}}
    for content in ("{", "[]", json.dumps({"format": "other"}), json.dumps(nameless)):
        (tmp_path / "state" / "models.json").write_text(content)
        with pytest.raises(DataError, match="models.json"):
            store.restore()


def test_unloading_waits_for_the_calls_in_flight(store: ModelStore, tmp_path: Path) -> None:
    store.load("gold", bag(tmp_path / "gold"))
    lease = store.lease("gold", "")
    unloading = threading.Thread(target=lambda: store.unload("gold", "", drain_seconds=30))
    unloading.start()
    unloading.join(0.3)
    assert unloading.is_alive()
    assert store.entry("gold", "").state is State.DRAINING
    with pytest.raises(Unavailable, match="draining"):
        store.lease("gold", "")
    lease.release()
    unloading.join(5)
    assert not unloading.is_alive()
    assert store.entries() == []
    with pytest.raises(NotFound, match="loaded are: none"):
        store.lease("", "")


def test_unloading_waits_no_longer_than_it_is_told(store: ModelStore, tmp_path: Path) -> None:
    store.load("gold", bag(tmp_path / "gold"))
    lease = store.lease("gold", "")
    store.unload("gold", "", drain_seconds=0.1)
    assert store.entries() == []
    lease.release()


def test_an_alias_is_no_model_and_a_model_no_alias(store: ModelStore, tmp_path: Path) -> None:
    store.load("gold", bag(tmp_path / "gold"))
    store.set_alias("judge", "gold", "")
    with pytest.raises(InvalidArgument, match="is an alias"):
        store.load("judge", bag(tmp_path / "gold"))
    with pytest.raises(InvalidArgument, match="name of a model"):
        store.set_alias("gold", "gold", "")
    with pytest.raises(NotFound, match="no model nobody"):
        store.set_alias("judge", "nobody", "")


class Gate:
    """Lets models be read only when it is open, and tells when somebody stands before it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, only: str) -> None:
        self.reached, self._open = threading.Event(), threading.Event()
        self.reads: list[str] = []

        def load(folder: Path, options: LoadOptions) -> AnyModel:
            self.reads.append(folder.name)
            if folder.name == only:
                self.reached.set()
                assert self._open.wait(30)
            return load_folder(folder, options)

        monkeypatch.setattr("assay_reward.reading.load_folder", load)

    def open(self) -> None:
        self._open.set()


def test_a_slow_load_holds_up_no_other_name(store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.load("one", bag(tmp_path / "one", 1.0))
    store.load("two", bag(tmp_path / "two", 2.0))
    gate = Gate(monkeypatch, "slow")
    with ThreadPoolExecutor(2) as threads:
        slow = threads.submit(store.load, "slow", bag(tmp_path / "slow", 3.0))
        assert gate.reached.wait(10)
        assert {entry.name: entry.state for entry in store.entries()}["slow"] is State.LOADING
        with pytest.raises(Unavailable, match="slow is loading"):
            store.lease("slow", "")
        with pytest.raises(InvalidArgument, match="name of a model"):
            store.set_alias("slow", "one", "")
        store.set_alias("default", "two", "")
        store.unload("one", "", drain_seconds=0)
        assert store.lease("", "").loaded.name == "two"
        again = new_store(tmp_path)
        again.restore()
        assert [entry.name for entry in again.entries()] == ["two"]
        assert not slow.done()
        gate.open()
        assert slow.result(10).state is State.READY


def test_a_second_load_of_a_name_waits_and_finds_it_done(store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = bag(tmp_path / "gold")
    gate = Gate(monkeypatch, "gold")
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(store.load, "gold", uri)
        assert gate.reached.wait(10)
        second = threads.submit(store.load, "gold", uri)
        unloading = threads.submit(store.unload, "gold", "", drain_seconds=0)
        with pytest.raises(TimeoutError):
            second.result(0.2)
        assert not unloading.done()
        gate.open()
        assert first.result(10).fingerprint == second.result(10).fingerprint
        unloading.result(10)
    assert gate.reads in (["gold"], ["gold", "gold"])  # twice where the unloading came between


def test_a_failed_load_of_a_name_lets_the_next_in(store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "bag_of_words.json").write_text("{}")
    gate = Gate(monkeypatch, "broken")
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(store.load, "gold", str(tmp_path / "broken"))
        assert gate.reached.wait(10)
        second = threads.submit(store.load, "gold", bag(tmp_path / "gold"))
        gate.open()
        with pytest.raises(InvalidArgument):
            first.result(10)
        assert second.result(10).state is State.READY


def test_a_model_is_warming_while_it_scores_first(store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[State] = []
    score = BagOfWords.score

    def watched(self: BagOfWords, prepared: Sequence[Prepared]) -> Computed:
        seen.append(store.entry("gold", "").state)
        return score(self, prepared)

    monkeypatch.setattr(BagOfWords, "score", watched)
    assert store.load("gold", bag(tmp_path / "gold")).state is State.READY
    assert seen == [State.WARMING]


def test_what_has_left_is_not_in_memory_when_its_last_call_ends(store: ModelStore, tmp_path: Path) -> None:
    folder = write_tiny_reward_model(tmp_path / "rm")
    store.load("rm", str(folder))
    lease = store.lease("rm", "")
    old = weakref.ref(lease.loaded.model)
    store.load("rm", str(write_tiny_reward_model(tmp_path / "new", seed=1)))
    assert old() is lease.loaded.model
    lease.release()
    del lease
    assert old() is None
    loaded = store.entry("rm", "").loaded
    assert loaded is not None
    new = weakref.ref(loaded.model)
    del loaded
    store.unload("rm", "", drain_seconds=0)
    assert new() is None


def test_models_of_the_start_are_loaded_once_and_take_nobodys_name(tmp_path: Path) -> None:
    wanted = {"one": bag(tmp_path / "one", 1.0), "two": bag(tmp_path / "two", 2.0)}
    store = new_store(tmp_path)
    store.restore()
    store.preload(wanted)
    assert store.lease("", "").loaded.name == "one"
    store.load("two", bag(tmp_path / "other", 3.0))  # while it runs
    again = new_store(tmp_path)
    again.restore()
    loaded = again.lease("one", "").loaded
    again.preload(wanted)
    assert again.lease("one", "").loaded is loaded
    assert again.entry("two", "").uri == str(tmp_path / "other")
    with pytest.raises(NotFound, match="nowhere"):
        again.preload({"three": str(tmp_path / "nowhere")})
