from importlib import resources
from pathlib import Path

import pytest
import yaml

from assay_evaluation.stages import RUNS
from assay_evaluation.studies import upstream
from assay_evaluation.study import StudyError, parse_study

STUDY = """
name: small
seed: 3
data: {uri: pairs.jsonl}
stages:
  report_card: {kind: benchmark, reward_models: [proxy, gold], comparisons: compared}
  dpo_00: {kind: dpo, policy: sft, data: compared, reward_model: proxy, gate: {benchmark: report_card}}
  clean: {kind: clean}
  split: {kind: split, labelled: clean, held_out_prompts: 3}
  gold: {kind: reward_model, model: bag_of_words, data: split.train}
  sft: {kind: sft, data: split.train, scratch: {hidden_size: 32}}
  samples: {kind: sample, policy: sft, prompts: split.train}
  compared: {kind: label, samples: samples, judge: gold}
  proxy: {kind: reward_model, base: sft, data: compared}
"""


def fault(old: str, new: str) -> tuple[str, str]:
    assert old in STUDY
    with pytest.raises(StudyError) as caught:
        parse_study(STUDY.replace(old, new, 1))
    assert len(caught.value.violations) == 1, caught.value.violations
    return caught.value.violations[0]


def test_the_order_follows_from_the_references():
    plan = parse_study(STUDY)
    assert plan.needs["dpo_00"] == ("sft", "compared", "proxy", "report_card")
    for name, needs in plan.needs.items():
        assert all(plan.order.index(needed) < plan.order.index(name) for needed in needs)


def test_a_stage_knows_all_that_lies_before_it():
    assert upstream(parse_study(STUDY), "compared") == ["clean", "split", "gold", "sft", "samples"]


@pytest.mark.parametrize(
    ("old", "new", "path", "hint"),
    [
        ("reward_model: proxy,", "reward_modle: proxy,", "stages.dpo_00.reward_modle", "did you mean 'reward_model'?"),
        ("hidden_size: 32", "hiden_size: 32", "stages.sft.scratch.hiden_size", "did you mean 'hidden_size'?"),
        ("judge: gold", "judge: golf", "stages.compared.judge", "did you mean 'gold'?"),
        ("kind: dpo", "kind: dop", "stages.dpo_00.kind", "did you mean 'dpo'?"),
        ("seed: 3", "sed: 3", "sed", "did you mean 'seed'?"),
        ("{kind: clean}", "{}", "stages.clean.kind", "missing"),
        ("data: {uri: pairs.jsonl}", "data: {}", "data.uri", "missing"),
        ("held_out_prompts: 3", "held_out_prompts: many", "stages.split.held_out_prompts", "valid integer"),
        ("judge: gold", "judge: sft", "stages.compared.judge", "gives no reward_model; stages that do: gold, proxy"),
        ("[proxy, gold]", "[proxy, godl]", "stages.report_card.reward_models[1]", "did you mean 'gold'?"),
        ("data: split.train, scratch", "data: split.trian, scratch", "stages.sft.data", "split.train, split.held_out"),
        ("scratch: {hidden_size: 32}", "threads: 2", "stages.sft", "either scratch or model_uri"),
        ("seed: 3", "seed: 3\nseed: 4", "study_yaml", "'seed' is written twice"),
        ("{kind: clean}", "{kind: clean", "study_yaml", "line"),
        ("  split:", "  Split Up:", "stages.Split Up", "pattern"),
    ],
)
def test_a_fault_is_named_by_its_path_with_what_would_be_right(old, new, path, hint):
    found, text = fault(old, new)
    assert found == path
    assert hint in text


def test_the_name_of_a_stage_alone_means_its_default_output():
    assert parse_study(STUDY.replace("data: split.train", "data: split")).needs["gold"] == ("split",)


def test_a_circle_is_named_by_a_field_on_it():
    path, text = fault("base: sft", "base: dpo_00")
    assert path in {
        "stages.proxy.base",
        "stages.dpo_00.reward_model",
        "stages.report_card.reward_models[0]",
        "stages.dpo_00.gate.benchmark",
    }
    assert "dpo_00" in text and "->" in text


def test_two_stages_that_need_each_other_are_a_circle():
    path, text = fault(
        "base: sft, data: compared}",
        "base: sft, data: own}\n  own: {kind: label, samples: samples, judge: own_judge}\n"
        "  own_judge: {kind: reward_model, model: bag_of_words, data: own}",
    )
    assert path in {"stages.own.judge", "stages.own_judge.data"}
    assert "own_judge" in text


def test_several_faults_are_told_at_once():
    with pytest.raises(StudyError) as caught:
        parse_study(STUDY.replace("judge: gold", "judge: golf").replace("base: sft", "base: stf"))
    assert {path for path, _ in caught.value.violations} == {"stages.compared.judge", "stages.proxy.base"}


@pytest.mark.parametrize("text", ["", "just words", "[1, 2]", "name: x"])
def test_what_is_no_study_is_refused(text):
    with pytest.raises(StudyError):
        parse_study(text)


def test_every_kind_of_stage_has_something_that_runs_it():
    plan = parse_study(resources.files("assay_cli").joinpath("studies/demo.yaml").read_text())
    kinds = {stage.kind for stage in plan.study.stages.values()}
    assert kinds == set(RUNS)


@pytest.mark.parametrize("path", [Path(__file__).parents[2] / "support/studies/tiny.yaml"])
def test_the_studies_of_the_tests_are_right(path):
    assert parse_study(path.read_text()).order[-1] == "report"


def test_the_demo_keeps_its_order_when_the_data_is_put_in():
    content = yaml.safe_load(resources.files("assay_cli").joinpath("studies/demo.yaml").read_text())
    content["data"] = {"uri": "pairs.jsonl", "name": "pairs", "limit": 5}
    plan = parse_study(yaml.safe_dump(content, sort_keys=False))
    assert plan.study.data.limit == 5
    assert plan.study.stages["rm_25"].label_flip_rate == 0.25
    assert plan.study.stages["rm_25"].base == "sft"


@pytest.mark.parametrize(
    ("old", "new", "path"), [("name: small", "nmae: small", "nmae"), ("judge: gold", "jugde: gold", "stages.compared.jugde")]
)
def test_a_misspelt_key_that_must_be_there_is_one_fault(old, new, path):
    assert fault(old, new)[0] == path
