"""From raw scores to probabilities and to scores without length: fitted on decided comparisons, judged on those it did not see.

Temperature scaling (Guo et al. 2017, arXiv 1706.04599) of the Bradley-Terry model: the better answer wins with probability
sigmoid(margin / temperature). The temperature that is served is fitted on all comparisons; what is claimed about it is cross-fitted
over folds of whole prompts, so that no comparison is judged by a temperature that its own prompt helped to fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit
from scipy.stats import chi2
from statsmodels.regression.linear_model import OLS

from assay_evaluation.statistics import CONFIDENCE, Estimate, Floats, clustered_mean, decimals, significant

CALIBRATION_BINS = 10
FOLDS = 5
QUANTILES = 101
_LOG_BOUNDS = (float(np.log(1e-3)), float(np.log(1e3)))
_FEWEST_FOR_A_SLOPE = 10


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A temperature and what it is worth; see the message `Calibration` of the contract for each figure.

    Attributes:
        temperature: Fitted on all comparisons, with its profile-likelihood interval.
        folds: Folds of the cross-fitting; 0 where there were too few prompts and the figures are of the fit itself.
        log_loss: Per comparison in nats, out of fold.
        uncalibrated_log_loss: Per comparison in nats at temperature 1.
        log_loss_gain: The second minus the first, paired; an interval that holds 0 shows no improvement.
        expected_calibration_error: Out of fold; 0..1.
        uncalibrated_expected_calibration_error: At temperature 1; 0..1.
        n: Number of comparisons; the intervals draw whole prompts and count those.
    """

    temperature: Estimate
    folds: int
    log_loss: Estimate
    uncalibrated_log_loss: Estimate
    log_loss_gain: Estimate
    expected_calibration_error: float
    uncalibrated_expected_calibration_error: float
    n: int

    @property
    def finding(self) -> str:
        """What the fit did to the log loss, by the interval of the gain."""
        if self.folds == 0:
            return "too few prompts to judge the temperature on others than it was fitted on"
        if self.log_loss_gain.low > 0:
            return "the fitted temperature improves the log loss out of fold"
        if self.log_loss_gain.high < 0:
            return "the fitted temperature makes the log loss out of fold worse"
        return "no improvement of the log loss out of fold is shown"

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON."""
        return {
            "n": self.n,
            "folds": self.folds,
            "temperature": _significant(self.temperature),
            "log_loss": self.log_loss.as_dict(),
            "uncalibrated_log_loss": self.uncalibrated_log_loss.as_dict(),
            "log_loss_gain": self.log_loss_gain.as_dict(),
            "expected_calibration_error": decimals(self.expected_calibration_error),
            "uncalibrated_expected_calibration_error": decimals(self.uncalibrated_expected_calibration_error),
            "finding": self.finding,
        }


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The reference sample: the scores of all answers of the benchmark, and what their length does.

    Attributes:
        quantiles: Raw scores at 0, 1/100, ..., 1; not descending.
        scores: Size of the sample.
        mean_response_tokens: Mean length of the answers in the model's tokens.
        length_slope: Raw score per response token; None where it cannot be told.
    """

    quantiles: Floats
    scores: int
    mean_response_tokens: float
    length_slope: Estimate | None

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON."""
        return {
            "quantiles": [significant(value) for value in self.quantiles],
            "scores": self.scores,
            "mean_response_tokens": significant(self.mean_response_tokens),
            "length_slope": _significant(self.length_slope) if self.length_slope else None,
        }


def calibrate(margins: Floats, prompts: Sequence[str], *, seed: int = 0) -> Calibration:
    """Fits the temperature, and judges it out of fold.

    Args:
        margins: Score of the better answer minus that of the worse, shape (n,).
        prompts: Prompt key of each comparison.
        seed: Seed of the bootstrap over prompts.
    """
    fold = np.array([hashlib.sha256(prompt.encode()).digest()[0] % FOLDS for prompt in prompts])
    names = np.unique(fold)
    folds = len(names) if len(names) > 1 else 0
    temperatures = np.empty_like(margins)
    for name in names:
        held = fold == name
        temperatures[held] = fit_temperature(margins[~held] if folds else margins)
    loss, uncalibrated = np.logaddexp(0.0, -margins / temperatures), np.logaddexp(0.0, -margins)
    return Calibration(
        temperature=temperature_estimate(margins),
        folds=folds,
        log_loss=clustered_mean(loss, prompts, seed=seed),
        uncalibrated_log_loss=clustered_mean(uncalibrated, prompts, seed=seed),
        log_loss_gain=clustered_mean(uncalibrated - loss, prompts, seed=seed),
        expected_calibration_error=calibration_error(margins, temperatures),
        uncalibrated_expected_calibration_error=calibration_error(margins, 1.0),
        n=int(margins.size),
    )


def fit_temperature(margins: Floats) -> float:
    """The temperature that makes sigmoid(margin / temperature) the likeliest win rate of the better answer.

    Margins are first measured in their own spread, so that the scale of a reward model does not matter. Where the margins do not agree
    with the labels at all, the likeliest temperature is without bound; it is held below a thousand spreads.
    """
    spread = _spread(margins)
    if spread == 0.0:
        return 1.0
    best = minimize_scalar(lambda log: _loss(margins / spread, log), bounds=_LOG_BOUNDS, method="bounded", options={"xatol": 1e-6})
    return spread * float(np.exp(best.x))


def temperature_estimate(margins: Floats) -> Estimate:
    """The temperature with its profile-likelihood interval: what is less than half a chi-square quantile less likely than the best.

    The interval ends where the fit does, at a thousandth and a thousand spreads of the margins.
    """
    temperature, spread = fit_temperature(margins), _spread(margins) or 1.0
    scaled = margins / spread
    best = float(np.log(temperature / spread))
    allowed = _loss(scaled, best) + float(chi2.ppf(CONFIDENCE, 1)) / (2 * margins.size)

    def excess(log_temperature: float) -> float:
        return _loss(scaled, log_temperature) - allowed

    low, high = (brentq(excess, best, end) if excess(end) > 0 else end for end in _LOG_BOUNDS)
    return Estimate(value=temperature, low=spread * float(np.exp(low)), high=spread * float(np.exp(high)), n=int(margins.size))


def calibration_error(margins: Floats, temperature: float | Floats) -> float:
    """Expected calibration error of sigmoid(|margin| / temperature) over ten equal bins of 0.5..1; 0..1."""
    confidence = expit(np.abs(margins) / temperature)
    correct = (margins > 0) + 0.5 * (margins == 0)
    bins = np.minimum(((confidence - 0.5) * 2 * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / margins.size)


def length_slope(margins: Floats, token_differences: Floats, prompts: Sequence[str]) -> Estimate | None:
    """Raw score per response token at equal human preference, within prompts.

    Least squares of the margin of a comparison on the difference in length of its answers. The prompt falls out of the difference; the
    intercept takes what people's preference explains, so that better answers being longer does not pass for a bias. The interval is
    robust to comparisons that share a prompt.

    Args:
        margins: Score of the better answer minus that of the worse, shape (n,).
        token_differences: Tokens of the better answer minus those of the worse, shape (n,).
        prompts: Prompt key of each comparison.

    Returns:
        None below ten prompts, or where the difference in length is always the same.
    """
    names, clusters = np.unique(np.asarray(prompts), return_inverse=True)
    if len(names) < _FEWEST_FOR_A_SLOPE or np.ptp(token_differences) == 0:
        return None
    explained_by = np.column_stack([np.ones_like(margins), token_differences])
    fit = OLS(margins, explained_by).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    low, high = fit.conf_int(alpha=1 - CONFIDENCE)[1]
    return Estimate(value=float(fit.params[1]), low=float(low), high=float(high), n=int(margins.size))


def reference_of(chosen: Floats, rejected: Floats, chosen_tokens: Floats, rejected_tokens: Floats, prompts: Sequence[str]) -> Reference:
    """The reference sample of a benchmark; arrays of shape (n,), one comparison each."""
    scores = np.concatenate([chosen, rejected])
    return Reference(
        quantiles=np.quantile(scores, np.linspace(0.0, 1.0, QUANTILES)),
        scores=int(scores.size),
        mean_response_tokens=float(np.concatenate([chosen_tokens, rejected_tokens]).mean()),
        length_slope=length_slope(chosen - rejected, chosen_tokens - rejected_tokens, prompts),
    )


def _spread(margins: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(margins))))


def _loss(scaled: Floats, log_temperature: float) -> float:
    return float(np.logaddexp(0.0, -scaled / np.exp(log_temperature)).mean())


def _significant(estimate: Estimate) -> dict[str, float | int]:
    return {
        "value": significant(estimate.value),
        "low": significant(estimate.low),
        "high": significant(estimate.high),
        "n": estimate.n,
    }
