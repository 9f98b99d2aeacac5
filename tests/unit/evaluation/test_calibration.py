"""Fits with known answers: what was planted comes back, and where there is nothing to gain that is said."""

import json

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from assay.common.v1 import common_pb2
from assay_evaluation.benchmark import Comparisons, ModelScores, run_benchmark
from assay_evaluation.calibration import calibrate, calibration_error, fit_temperature, length_slope, reference_of, temperature_estimate
from assay_evaluation.cards import calibration_id, make_card


def planted(n: int, temperature: float, seed: int = 3) -> np.ndarray:
    """Margins of a model whose better answer wins with probability sigmoid(margin / temperature)."""
    rng = np.random.default_rng(seed)
    strength = rng.normal(0, 2, n)
    wins = rng.random(n) < 1 / (1 + np.exp(-strength))
    return temperature * np.where(wins, strength, -strength)


def names(n: int, share: int = 1) -> list[str]:
    return [f"prompt-{i // share}" for i in range(n)]


def test_the_temperature_does_not_depend_on_the_scale_of_the_model():
    margins = np.random.default_rng(2).normal(0.8, 1, 500)
    assert fit_temperature(1000 * margins) == pytest.approx(1000 * fit_temperature(margins), rel=1e-3)


def test_the_planted_temperature_lies_in_the_interval_and_the_interval_shrinks_with_n():
    few, many = temperature_estimate(planted(400, 5.0)), temperature_estimate(planted(40_000, 5.0))
    assert few.low < 5.0 < few.high
    assert many.low < 5.0 < many.high
    assert many.value == pytest.approx(5.0, rel=0.03)
    assert (many.high - many.low) == pytest.approx((few.high - few.low) / 10, rel=0.35)
    assert (few.n, many.n) == (400, 40_000)


def test_margins_that_say_nothing_have_an_interval_as_wide_as_the_fit():
    nothing = temperature_estimate(np.zeros(50))
    assert (nothing.value, nothing.low, nothing.high) == pytest.approx((1.0, 1e-3, 1e3))


def test_the_fitted_temperature_calibrates():
    margins = planted(6000, 5.0)
    assert calibration_error(margins, fit_temperature(margins)) < 0.03
    assert calibration_error(margins, 1.0) > 0.05


def test_an_overconfident_model_gains_out_of_fold_and_the_gain_is_the_known_one():
    margins = planted(4000, 5.0)
    found = calibrate(margins, names(4000))
    at_truth = float(np.logaddexp(0, -margins / 5.0).mean())
    assert found.folds == 5 and found.n == 4000
    assert found.log_loss.value == pytest.approx(at_truth, abs=0.002)
    assert found.log_loss_gain.low > 0.3
    assert found.log_loss_gain.value == pytest.approx(found.uncalibrated_log_loss.value - found.log_loss.value)
    assert found.expected_calibration_error < 0.03 < found.uncalibrated_expected_calibration_error
    assert "improves" in found.finding


def test_a_model_that_is_calibrated_already_gains_nothing_and_that_is_said():
    found = calibrate(planted(4000, 1.0), names(4000))
    assert found.log_loss_gain.low <= 0 <= found.log_loss_gain.high
    assert found.finding == "no improvement of the log loss out of fold is shown"


def test_a_model_at_random_loses_no_more_than_a_coin_out_of_fold():
    found = calibrate(np.random.default_rng(4).normal(0, 1, 2000), names(2000))
    assert found.log_loss.value == pytest.approx(np.log(2), abs=0.01)
    assert found.expected_calibration_error < 0.05


def test_comparisons_of_one_prompt_are_never_in_two_folds():
    margins = planted(300, 2.0)
    found = calibrate(margins, names(300, share=300))
    assert found.folds == 0
    assert found.log_loss.value == pytest.approx(float(np.logaddexp(0, -margins / fit_temperature(margins)).mean()))
    assert "too few prompts" in found.finding


def test_the_length_slope_is_the_planted_one_though_better_answers_are_longer():
    rng = np.random.default_rng(5)
    chosen_tokens, rejected_tokens = rng.integers(20, 120, 200).astype(float), rng.integers(10, 60, 200).astype(float)
    # The better answer is worth two points whatever its length, and each token three hundredths.
    exact = length_slope(2.0 + 0.03 * (chosen_tokens - rejected_tokens), chosen_tokens - rejected_tokens, names(200))
    assert exact is not None
    assert exact.value == pytest.approx(0.03)
    noisy = length_slope(
        2.0 + 0.03 * (chosen_tokens - rejected_tokens) + rng.normal(0, 1, 200), chosen_tokens - rejected_tokens, names(200, share=2)
    )
    assert noisy is not None
    assert noisy.low < 0.03 < noisy.high and noisy.low > 0
    assert noisy.n == 200


def test_no_slope_is_told_from_equal_lengths_or_few_prompts():
    margins, differences = np.ones(200), np.arange(200.0)
    assert length_slope(margins, np.full(200, 7.0), names(200)) is None
    assert length_slope(margins, differences, names(200, share=100)) is None


def test_the_reference_sample_is_all_answers_as_their_quantiles():
    chosen, rejected = np.arange(50, 101).astype(float), np.arange(0, 50).astype(float)
    reference = reference_of(chosen[:50], rejected, chosen[:50], rejected, names(50))
    assert reference.scores == 100
    assert reference.quantiles.shape == (101,)
    assert (reference.quantiles[0], reference.quantiles[50], reference.quantiles[100]) == (0.0, 49.5, 99.0)
    assert reference.mean_response_tokens == 49.5


def card(shift: float = 0.0) -> common_pb2.QualityCard:
    rng = np.random.default_rng(6)
    chosen, rejected = rng.normal(1 + shift, 1, 80), rng.normal(0, 1, 80)
    tokens = rng.integers(5, 50, (2, 80)).astype(float)
    comparisons = Comparisons(ids=names(80), prompts=names(80), chosen_words=tokens[0], rejected_words=tokens[1])
    scores = ModelScores(name="m", fingerprint="f", chosen=chosen, rejected=rejected, chosen_tokens=tokens[0], rejected_tokens=tokens[1])
    entry = json.loads(json.dumps(run_benchmark(comparisons, [scores]).as_dict()))["models"][0]
    return make_card(entry, data=common_pb2.Artifact(), measured_at=Timestamp())


def test_a_card_carries_what_derived_scores_and_drift_need():
    made = card()
    assert made.temperature == made.calibration.temperature.value
    assert made.calibration.temperature.low < made.temperature < made.calibration.temperature.high
    assert made.calibration.temperature.n == 80
    assert made.expected_calibration_error == made.calibration.expected_calibration_error
    assert len(made.reference_quantiles) == 101 and list(made.reference_quantiles) == sorted(made.reference_quantiles)
    assert made.reference_scores == 160
    assert made.length_slope.low < made.length_slope.value < made.length_slope.high
    assert 5 <= made.mean_response_tokens < 50


def test_the_calibration_id_follows_the_figures_alone():
    first, again, other = card(), card(), card(shift=0.5)
    assert first.calibration.id == again.calibration.id == calibration_id(first)
    assert len(first.calibration.id) == 32
    assert other.calibration.id != first.calibration.id
