import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.tiny_models import write_tiny_causal_lm, write_tiny_reward_model

from assay_data.fingerprints import fingerprint_folder
from assay_kit.errors import AssayError, FailedPrecondition, InvalidArgument, NotFound
from assay_policy.backends.registry import BackendKind, Backends
from assay_policy.catalogue import Catalogue
from assay_policy.settings import PolicySettings


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[], Catalogue]]:
    made: list[Catalogue] = []

    def make() -> Catalogue:
        while made:
            made.pop().close()
        made.append(Catalogue(Backends(PolicySettings(data_dir=tmp_path)), tmp_path / "models.json"))
        made[-1].restore({})
        return made[-1]

    yield make
    while made:
        made.pop().close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_causal_lm(tmp_path / "a")


def test_a_model_knows_its_fingerprint_context_and_revision(make: Callable[[], Catalogue], folder: Path):
    policy = make().load("sft", str(folder))
    fingerprint = fingerprint_folder(folder).fingerprint
    assert (policy.facts.fingerprint, policy.revision, policy.facts.max_context_tokens) == (fingerprint, fingerprint[:12], 512)


def test_the_same_name_and_content_again_changes_nothing(make: Callable[[], Catalogue], folder: Path):
    catalogue = make()
    assert catalogue.load("sft", str(folder)) is catalogue.load("sft", str(folder))


def test_new_weights_in_the_same_folder_are_loaded(make: Callable[[], Catalogue], folder: Path):
    catalogue = make()
    before = catalogue.load("sft", str(folder))
    write_tiny_causal_lm(folder, seed=1)
    after = catalogue.load("sft", str(folder))
    assert after.facts.fingerprint != before.facts.fingerprint
    assert catalogue.get("sft") is after


def test_a_model_that_cannot_be_loaded_leaves_the_one_of_its_name(make: Callable[[], Catalogue], folder: Path, tmp_path: Path):
    catalogue = make()
    held = catalogue.load("sft", str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidArgument, match="no weights"):
        catalogue.load("sft", str(tmp_path / "empty"))
    assert catalogue.get("sft") is held


@pytest.mark.parametrize(
    ("uri", "kind", "served", "field"),
    [
        ("nowhere/at-all", None, "", "uri"),
        ("/nowhere/at/all", None, "", "uri"),
        ("http://127.0.0.1:1", BackendKind.TRANSFORMERS, "", "uri"),
        ("{folder}", BackendKind.OPENAI, "", "uri"),
        ("{folder}", None, "gpt", "served_model"),
        ("http://127.0.0.1:1?apo=chat", None, "", "uri"),
        ("http://127.0.0.1:1?api=completions", None, "", "uri"),
    ],
)
def test_a_uri_that_does_not_fit_is_refused_by_its_field(
    make: Callable[[], Catalogue], folder: Path, uri: str, kind: BackendKind | None, served: str, field: str
):
    with pytest.raises(InvalidArgument) as refused:
        make().load("x", uri.format(folder=folder), kind=kind, served_model=served)
    assert refused.value.violations[0][0] == field


def test_a_model_without_a_chat_template_is_refused(make: Callable[[], Catalogue], folder: Path):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InvalidArgument, match="chat template"):
        make().load("x", str(folder))


def test_a_file_url_is_a_folder_too(make: Callable[[], Catalogue], folder: Path):
    assert make().load("x", folder.as_uri()).facts.max_context_tokens == 512


def test_an_unknown_name_or_revision_is_told_what_there_is(make: Callable[[], Catalogue], folder: Path):
    catalogue = make()
    with pytest.raises(NotFound, match="LoadModel"):
        catalogue.get("")
    policy = catalogue.load("sft", str(folder))
    with pytest.raises(NotFound, match=f"'dpo'; there are sft \\({policy.revision}\\)"):
        catalogue.get("dpo")
    with pytest.raises(NotFound, match="revision 'old'"):
        catalogue.get("sft", "old")


def test_an_empty_name_is_the_first_one_loaded(make: Callable[[], Catalogue], folder: Path):
    catalogue = make()
    first = catalogue.load("z", str(folder))
    catalogue.load("a", str(folder))
    assert catalogue.get() is first
    assert [policy.name for policy in catalogue.all()] == ["a", "z"]


def test_what_was_loaded_is_loaded_again_after_a_restart_in_the_same_order(make: Callable[[], Catalogue], folder: Path):
    catalogue = make()
    catalogue.load("z", str(folder), revision="r1")
    catalogue.load("a", str(folder))
    catalogue = make()
    assert (catalogue.get().name, catalogue.get().revision) == ("z", "r1")
    assert [policy.name for policy in catalogue.all()] == ["a", "z"]


def test_what_was_unloaded_stays_away(make: Callable[[], Catalogue], folder: Path):
    catalogue = make()
    catalogue.load("sft", str(folder))
    catalogue.unload("sft")
    with pytest.raises(NotFound):
        catalogue.unload("sft")
    assert make().all() == []


def test_a_model_that_is_gone_at_restart_says_why_and_the_others_serve(make: Callable[[], Catalogue], folder: Path, tmp_path: Path):
    catalogue = make()
    catalogue.load("gone", str(write_tiny_causal_lm(tmp_path / "b", seed=1)))
    catalogue.load("sft", str(folder))
    shutil.rmtree(tmp_path / "b")
    catalogue = make()
    assert catalogue.get("sft").name == "sft"
    with pytest.raises(FailedPrecondition, match="gone could not be loaded again"):
        catalogue.get("gone")
    catalogue.load("gone", str(folder))
    assert catalogue.get("gone").facts == catalogue.get("sft").facts


def test_a_model_whose_files_changed_meanwhile_is_not_passed_off_as_the_old_one(make: Callable[[], Catalogue], folder: Path):
    make().load("sft", str(folder))
    write_tiny_causal_lm(folder, seed=1)
    catalogue = make()
    with pytest.raises(FailedPrecondition, match="files have changed"):
        catalogue.get("sft")
    assert catalogue.load("sft", str(folder)).facts.fingerprint == fingerprint_folder(folder).fingerprint


def test_a_replaced_model_is_closed_after_its_last_call(make: Callable[[], Catalogue], folder: Path, tmp_path: Path):
    catalogue = make()
    catalogue.load("sft", str(folder))
    old = catalogue.lease("sft")
    catalogue.load("sft", str(write_tiny_causal_lm(tmp_path / "b", seed=1)))
    assert hasattr(old.backend, "_model")
    old.leave()
    assert not hasattr(old.backend, "_model")


def test_preloaded_models_are_there_at_start_unless_the_name_is_taken(make: Callable[[], Catalogue], folder: Path, tmp_path: Path):
    catalogue = make()
    catalogue.load("sft", str(folder))
    other = write_tiny_causal_lm(tmp_path / "b", seed=1)
    catalogue.restore({"sft": str(other), "base": str(other)})
    assert catalogue.get("sft").source.uri == str(folder)
    assert catalogue.get("base").source.uri == str(other)


def test_the_list_of_models_holds_no_more_than_what_was_asked_and_found(make: Callable[[], Catalogue], folder: Path, tmp_path: Path):
    make().load("sft", str(folder))
    (entry,) = json.loads((tmp_path / "models.json").read_text())
    assert entry["source"] == {"uri": str(folder), "kind": "transformers", "served_model": "", "revision": ""}


def test_a_reward_models_folder_is_no_policy(make: Callable[[], Catalogue], tmp_path: Path):
    with pytest.raises(AssayError):
        make().load("x", str(write_tiny_reward_model(tmp_path / "bert", family="bert")))
