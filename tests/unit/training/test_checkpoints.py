from pathlib import Path

import pytest
from support.run_programs import always_killed, killed_twice, last_word, no_word, orphaned_once

from assay_training.child import ChildFailed, Program, supervise
from assay_training.fitting import WHOLE, newest_checkpoint
from assay_training.lineage import identity_of
from assay_training.registry import ALGORITHMS, SCRATCH_DEFAULTS, defaults_of, module_of
from assay_training.spec import RunSpec, TrainingRequest

SCRATCH = {"vocab_size": 300, "hidden_size": 32, "layers": 1, "heads": 2, "max_context_tokens": 64}


def request(**fields: object) -> TrainingRequest:
    return TrainingRequest.model_validate({"output_uri": "/out", "sft": {"scratch": SCRATCH, "data_uri": "/d"}, **fields})


def test_a_checkpoint_that_was_cut_short_is_removed_and_the_one_before_is_used(tmp_path: Path) -> None:
    for step in (9, 10, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "model.safetensors").write_text("half")
    for step in (9, 10):
        (tmp_path / f"checkpoint-{step}" / WHOLE).touch()
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-20").exists()


def test_without_checkpoints_a_run_starts_from_the_start(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "none") is None


def test_zeros_stand_for_the_defaults_of_what_is_trained() -> None:
    assert defaults_of(request()) == SCRATCH_DEFAULTS
    fine_tuning = request(sft={"model_uri": "/m", "data_uri": "/d"})
    assert defaults_of(fine_tuning) == ALGORITHMS["sft"].defaults
    mixed = request(optimizer={"epochs": 5}).optimizer.with_defaults(SCRATCH_DEFAULTS)
    assert (mixed.epochs, mixed.batch_size) == (5, SCRATCH_DEFAULTS.batch_size)


def test_a_bag_of_words_is_trained_without_torch() -> None:
    bag = request(sft=None, reward_model={"kind": "REWARD_MODEL_KIND_BAG_OF_WORDS", "data_uri": "/d"})
    assert module_of(bag) == "assay_training.bag_of_words"
    assert module_of(request(sft=None, reward_model={"model_uri": "/m", "data_uri": "/d"})) == "assay_training.reward_model"


def test_what_decides_the_weights_decides_the_identity() -> None:
    def identity(**fields: object) -> str:
        return identity_of(RunSpec(request=request(**fields), work_dir=Path("/w")))

    assert identity() == identity(job_id="other", output_uri="/elsewhere")
    assert len({identity(), identity(seed=1), identity(threads=2), identity(limit=5)}) == 4


def supervised(tmp_path: Path, program: Program, *, restarts: int = 2) -> tuple[list[dict[str, object]], list[str]]:
    """Supervises a run that does this instead of training."""
    lines: list[dict[str, object]] = []
    why: list[str] = []
    supervise(
        tmp_path / "spec.json",
        log=tmp_path / "log",
        restarts=restarts,
        on_line=lambda line: lines.append(dict(line)),
        on_restart=why.append,
        look_up=lambda: None,
        program=program,
    )
    return lines, why


def test_a_killed_process_is_started_again_as_often_as_allowed(tmp_path: Path) -> None:
    lines, why = supervised(tmp_path, killed_twice)
    assert [line["try"] for line in lines] == [0, 1, 2]
    assert why == ["the process of the run was killed by SIGKILL"] * 2


def test_a_run_whose_fork_server_is_killed_dies_with_it_and_is_started_again(tmp_path: Path) -> None:
    lines, why = supervised(tmp_path, orphaned_once)
    assert lines == [{"stage": "train"}]
    assert why == ["the process that the run was forked from was killed"]


def test_a_process_that_is_killed_once_too_often_fails(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="killed by SIGKILL, 2 times"):
        supervised(tmp_path, always_killed, restarts=1)


def test_the_runs_own_last_word_is_the_error(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match=r"^row 3 is wrong$"):
        supervised(tmp_path, last_word)


def test_a_process_that_dies_without_a_word_fails_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match="ended with 1: ZeroDivisionError: division by zero"):
        supervised(tmp_path, no_word)
