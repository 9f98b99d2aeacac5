"""What a raw score is on the scales of a quality card.

Every scale depends on the answer and the card alone, never on the other answers of a request: the same text has the same value alone
and in any group.
"""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import expit

from assay.common.v1 import common_pb2
from assay_kit.errors import FailedPrecondition
from assay_reward.inputs import Scale


@dataclass(frozen=True, kw_only=True)
class Scales:
    """A score on every scale; None on those that the card does not support.

    Attributes:
        raw: The head's output.
        standardized: (raw - mean) / std.
        win_probability: Of this answer over one of average reward, by the Bradley-Terry model at the fitted temperature:
            sigmoid((raw - mean) / temperature). Among probabilities against a fixed opponent alone, log odds subtract to the log odds of
            a comparison: answer i is preferred to j with probability sigmoid(logit(p_i) - logit(p_j)) = sigmoid((raw_i - raw_j) / T).
        length_corrected: raw - slope * (response tokens - mean response tokens).
    """

    raw: float
    standardized: float | None = None
    win_probability: float | None = None
    length_corrected: float | None = None

    def value(self, scale: Scale) -> float:
        """The score on one scale.

        Raises:
            FailedPrecondition: The card does not support it.
        """
        if scale is Scale.RAW:
            return self.raw
        value = {
            Scale.STANDARDIZED: self.standardized,
            Scale.CALIBRATED: self.win_probability,
            Scale.LENGTH_CORRECTED: self.length_corrected,
        }[scale]
        if value is None:
            raise FailedPrecondition(f"the model's quality card does not support {scale.name} scores")
        return value


def scales_of(raw: float, response_tokens: int, card: common_pb2.QualityCard | None) -> Scales:
    """A raw score on every scale that the card supports."""
    if card is None:
        return Scales(raw=raw)
    return Scales(
        raw=raw,
        standardized=(raw - card.mean) / card.std if card.std > 0 else None,
        win_probability=float(expit((raw - card.mean) / card.temperature)) if card.temperature > 0 else None,
        length_corrected=(
            raw - card.length_slope.value * (response_tokens - card.mean_response_tokens) if card.HasField("length_slope") else None
        ),
    )


def check_scale(scale: Scale, card: common_pb2.QualityCard | None, model: str) -> None:
    """Raises FailedPrecondition where the scale needs what was not measured."""
    if scale is Scale.RAW:
        return
    if card is None:
        raise FailedPrecondition(f"model {model} has no quality card, so only RAW scores; measure it with the evaluation service first")
    if scale is Scale.STANDARDIZED and not card.std > 0:
        raise FailedPrecondition(f"the quality card of model {model} has no std above 0, so it has no STANDARDIZED scores")
    if scale is Scale.CALIBRATED and not card.temperature > 0:
        raise FailedPrecondition(f"the quality card of model {model} has no temperature above 0, so it has no CALIBRATED scores")
    if scale is Scale.LENGTH_CORRECTED and not card.HasField("length_slope"):
        raise FailedPrecondition(f"the quality card of model {model} has no length slope, so it has no LENGTH_CORRECTED scores")
