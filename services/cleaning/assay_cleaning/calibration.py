"""From margins to probabilities, and the interval of a rate. What the two numbers mean: `assay_cleaning.committee`."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy.optimize

_NOISE_PRIOR = (10.0, 40.0)
_NOISE_GRID = np.linspace(0.01, 0.45, 45)
_Z = 1.959963984540054


def calibrate(margins: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Temperature and rate of wrong records under which cross-fitted margins are most likely, with the prior on the rate."""
    alpha, beta = _NOISE_PRIOR
    best: tuple[float, float, float] | None = None
    for noise in _NOISE_GRID:

        def loss(log_temperature: float, noise: float = float(noise)) -> float:
            better = 1.0 / (1.0 + np.exp(-np.clip(margins / math.exp(log_temperature), -500, 500)))
            likelihood = float(np.log(noise + (1 - 2 * noise) * better).sum())
            return -likelihood - (alpha - 1) * math.log(noise) - (beta - 1) * math.log(1 - noise)

        found = scipy.optimize.minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded", options={"xatol": 1e-4})
        if best is None or found.fun < best[0]:
            best = (float(found.fun), math.exp(float(found.x)), float(noise))
    assert best is not None
    return best[1], best[2]


def wilson(successes: float, n: int) -> tuple[float, float]:
    """95 % Wilson interval of a rate; n > 0."""
    rate = successes / n
    centre = (rate + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
    half = _Z / (1 + _Z * _Z / n) * math.sqrt(rate * (1 - rate) / n + _Z * _Z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)), without overflow."""
    return 1.0 / (1.0 + math.exp(-max(-500.0, min(500.0, value))))
