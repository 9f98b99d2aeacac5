"""What a raw score is on the scales of a card."""

import math

import pytest

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2
from assay_kit.errors import FailedPrecondition
from assay_reward.engine import Scored
from assay_reward.inputs import Scale
from assay_reward.models.base import MemberScore, Prepared
from assay_reward.replies import score_message
from assay_reward.scales import Scales, check_scale, scales_of

CARD = common_pb2.QualityCard(
    fingerprint="f", mean=1.0, std=2.0, temperature=0.5, length_slope=common_pb2.Estimate(value=0.1, n=9), mean_response_tokens=20
)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_a_score_is_on_every_scale_of_the_card() -> None:
    scales = scales_of(3.0, 30, CARD)
    assert scales.standardized == 1.0
    assert scales.win_probability == pytest.approx(1 / (1 + math.exp(-4)))
    assert scales.length_corrected == pytest.approx(3.0 - 0.1 * 10)
    assert [scales.value(scale) for scale in Scale] == [3.0, 1.0, scales.win_probability, scales.length_corrected]


def test_comparisons_of_a_group_follow_from_win_probabilities_as_bradley_and_terry_say() -> None:
    first, second = (scales_of(raw, 10, CARD).win_probability for raw in (1.7, 0.9))
    assert first is not None and second is not None
    assert logit(first) - logit(second) == pytest.approx((1.7 - 0.9) / 0.5)


def test_far_scores_stay_within_0_and_1_and_tell_small_probabilities_apart() -> None:
    far = [scales_of(raw, 10, CARD).win_probability for raw in (-1e6, -100.0, -20.0, 1e6)]
    assert far[0] == 0.0 and far[3] == 1.0
    assert far[1] is not None and far[2] is not None and 0 < far[1] < far[2] < 1e-15


def test_what_was_not_measured_is_absent_and_asking_for_it_is_refused() -> None:
    bare = common_pb2.QualityCard(fingerprint="f", mean=1.0)
    for card in (None, bare):
        assert scales_of(3.0, 30, card) == Scales(raw=3.0)
        check_scale(Scale.RAW, card, "rm")
        for scale in (Scale.STANDARDIZED, Scale.CALIBRATED, Scale.LENGTH_CORRECTED):
            with pytest.raises(FailedPrecondition, match="rm"):
                check_scale(scale, card, "rm")


def test_a_reply_shows_the_members_of_an_ensemble_and_their_spread() -> None:
    prepared = Prepared(text="x", prompt_tokens=4, response_tokens=30)
    members = (MemberScore(name="a", raw=2.0), MemberScore(name="b", raw=4.0))
    score = score_message("id", Scored(raw=3.0, prepared=prepared, std=math.sqrt(2), members=members), Scale.STANDARDIZED, CARD)
    assert [(member.name, member.raw) for member in score.members] == [("a", 2.0), ("b", 4.0)]
    assert score.stddev == math.sqrt(2)
    assert (score.value, score.scale) == (1.0, reward_pb2.SCORE_SCALE_STANDARDIZED)
    alone = score_message("id", Scored(raw=3.0, prepared=prepared), Scale.RAW, None)
    assert not alone.HasField("stddev") and not alone.members
