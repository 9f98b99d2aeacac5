import pytest
from prometheus_client import REGISTRY

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2
from assay_kit.errors import FailedPrecondition
from assay_training.gate import Lookup, judge
from assay_training.spec import Gate


def served(low: float | None, *, mean: float = 0.4, std: float = 2.0) -> Lookup:
    """A reward service with one model, whose card has this lower bound; None: no card."""
    model = reward_pb2.ModelInfo(name="rm", provenance=reward_pb2.Provenance(fingerprint="f" * 64))
    if low is not None:
        estimate = common_pb2.Estimate(value=low + 0.05, low=low, high=low + 0.1, n=400)
        model.quality_card.CopyFrom(common_pb2.QualityCard(fingerprint="f" * 64, accuracy=estimate, mean=mean, std=std))
    return lambda name: model


@pytest.mark.parametrize(("low", "bar"), [(0.5, 0.0), (0.51, 0.5), (0.7, 0.7)])
def test_a_model_at_the_bar_or_above_passes_with_the_scale_of_its_card(low: float, bar: float) -> None:
    verdict = judge(Gate(reward_model="rm", min_accuracy_low=bar), served(low))
    assert verdict.passed and not verdict.override_reason
    assert (verdict.mean, verdict.std) == (0.4, 2.0)
    assert verdict.as_proto_json()["accuracy"] == pytest.approx({"value": low + 0.05, "low": low, "high": low + 0.1, "n": 400})


@pytest.mark.parametrize(("low", "bar"), [(0.499, 0.0), (0.69, 0.7)])
def test_a_model_below_the_bar_is_refused_with_what_was_found(low: float, bar: float) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        judge(Gate(reward_model="rm", min_accuracy_low=bar), served(low))
    for words in (f"{low:.3f}", f"at least {bar or 0.5:g}", "ffffffffffff", "n 400", "override_reason"):
        assert words in refused.value.message


def test_a_model_that_nobody_measured_is_refused() -> None:
    with pytest.raises(FailedPrecondition, match="no quality card.*override_reason"):
        judge(Gate(reward_model="rm"), served(None))


def test_a_reason_overrides_and_is_recorded() -> None:
    verdict = judge(Gate(reward_model="rm", override_reason="study of noise"), served(None))
    assert verdict.as_proto_json() == {"fingerprint": "f" * 64, "passed": False, "override_reason": "study of noise"}
    assert (verdict.mean, verdict.std) == (0.0, 1.0)


def test_a_reason_that_was_not_needed_is_not_recorded() -> None:
    assert judge(Gate(reward_model="rm", override_reason="just in case"), served(0.6)).override_reason == ""


def test_a_card_without_a_spread_leaves_scores_as_they_are() -> None:
    assert judge(Gate(reward_model="rm"), served(0.6, std=0.0)).std == 1.0


def test_a_refusal_is_counted_and_a_training_that_may_go_on_is_not() -> None:
    def refused() -> float:
        return REGISTRY.get_sample_value("assay_training_gate_refusals_total") or 0.0

    before = refused()
    with pytest.raises(FailedPrecondition):
        judge(Gate(reward_model="rm"), served(None))
    judge(Gate(reward_model="rm"), served(0.6))
    judge(Gate(reward_model="rm", override_reason="study of noise"), served(None))
    assert refused() == before + 1
