"""What best-of-n would give for each n, from one set of N samples a prompt.

For each n the expectation over all subsets of n samples is computed exactly (the unbiased estimator of arXiv 2112.09332, appendix I,
as used by arXiv 2210.10760), so that no sample is wasted and curves are smooth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from assay_evaluation.statistics import Estimate, Floats, mean


@dataclass(frozen=True, kw_only=True)
class BestOfN:
    """The outcome at one n.

    Attributes:
        n: Samples the reward model chooses from.
        kl: KL divergence to the sampling policy, log n - (n-1)/n, in nats.
        gold: Mean gold score of the chosen, over prompts.
        proxy: Mean score of the chosen by the reward model that chose.
        gold_per_prompt: Expected gold score of the chosen for each prompt, shape (prompts,).
    """

    n: int
    kl: float
    gold: Estimate
    proxy: Estimate
    gold_per_prompt: Floats


def best_of_n_kl(n: int) -> float:
    """KL divergence in nats of best-of-n to the policy it samples from (arXiv 2210.10760)."""
    return math.log(n) - (n - 1) / n


def sizes(samples: int) -> list[int]:
    """1, 2, 4, … up to and with `samples`."""
    powers = [2**k for k in range(samples.bit_length()) if 2**k <= samples]
    return powers if powers[-1] == samples else [*powers, samples]


def expected_of_chosen(proxy: Floats, value: Floats, n: int) -> float:
    """Expected `value` of the sample with the highest `proxy` among n drawn without replacement.

    Args:
        proxy: Scores that choose, shape (N,).
        value: What is averaged, shape (N,).
        n: Size of the draw, 1..N.

    Returns:
        The mean over all subsets; samples with equal proxy score share their weight.
    """
    total = proxy.size
    order = np.argsort(proxy, kind="stable")
    rank = np.arange(1, total + 1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        log_weight = _log_choose(rank - 1, n - 1) - _log_choose(np.array(float(total)), n)
    weight = np.where(rank >= n, np.exp(log_weight), 0.0)
    ordered, values = proxy[order], value[order]
    result = 0.0
    start = 0
    while start < total:
        stop = start
        while stop < total and ordered[stop] == ordered[start]:
            stop += 1
        result += float(weight[start:stop].sum() * values[start:stop].mean())
        start = stop
    return result


def curve(proxy: Sequence[Floats], gold: Sequence[Floats], ns: Sequence[int] | None = None) -> list[BestOfN]:
    """Best-of-n for n = 1, 2, 4, … over prompts.

    Args:
        proxy: Scores of each prompt's samples by the reward model that chooses; one array of shape (N,) a prompt.
        gold: Gold scores of the same samples.
        ns: The n wanted; by default powers of two up to the smallest N.

    Raises:
        ValueError: If the shapes differ, or there are fewer than two prompts.
    """
    if len(proxy) != len(gold) or any(p.shape != g.shape for p, g in zip(proxy, gold, strict=False)):
        raise ValueError("each sample needs a proxy and a gold score")
    if len(proxy) < 2:
        raise ValueError(f"best-of-n needs two prompts or more, got {len(proxy)}")
    smallest = min(p.size for p in proxy)
    points = []
    for n in ns if ns is not None else sizes(smallest):
        golds = np.array([expected_of_chosen(p, g, n) for p, g in zip(proxy, gold, strict=True)])
        proxies = np.array([expected_of_chosen(p, p, n) for p in proxy])
        points.append(BestOfN(n=n, kl=best_of_n_kl(n), gold=mean(golds), proxy=mean(proxies), gold_per_prompt=golds))
    return points


def _log_choose(total: Floats, k: int) -> Floats:
    return np.asarray(gammaln(total + 1) - gammaln(k + 1) - gammaln(np.maximum(total - k, 0) + 1), dtype=np.float64)
