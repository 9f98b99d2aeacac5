"""What the newest evaluation found, for Prometheus: gold scores and divergence of policies, of their snapshots, and of best-of-n.

The series of one evaluation take the place of those of the one before, so that there are never more than one evaluation has. A service
that was started again has none until the next evaluation: what was found is in the evaluation's own files.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import Gauge

_POLICY = ["policy"]
_POINT = ["policy", "rollout"]
_CHOICE = ["reward_model", "n"]
_changing = threading.Lock()


class _Estimates:
    """A gauge with two more for the bounds of its 95 % interval."""

    def __init__(self, name: str, what: str, labels: Sequence[str]) -> None:
        self._gauges = {
            "value": Gauge(name, f"{what}.", labels),
            "low": Gauge(f"{name}_low", f"{what}: lower bound of the 95 % interval.", labels),
            "high": Gauge(f"{name}_high", f"{what}: upper bound of the 95 % interval.", labels),
        }

    def clear(self) -> None:
        for gauge in self._gauges.values():
            gauge.clear()

    def set(self, labels: Sequence[str], estimate: Mapping[str, float]) -> None:
        for name, gauge in self._gauges.items():
            gauge.labels(*labels).set(estimate[name])


POLICY_GOLD = _Estimates("assay_evaluation_policy_gold_score", "Mean gold score of a policy's answers", _POLICY)
POLICY_KL = _Estimates("assay_evaluation_policy_kl_nats", "Divergence of a policy from the reference, an answer", _POLICY)
POLICY_WINS = _Estimates("assay_evaluation_policy_win_ratio", "Share of prompts on which a policy beats the reference by gold", _POLICY)
SNAPSHOT_GOLD = Gauge("assay_evaluation_snapshot_gold_score", "Mean gold score of a policy after some rollouts of its training.", _POINT)
SNAPSHOT_KL = Gauge("assay_evaluation_snapshot_kl_nats", "Divergence from the reference after some rollouts, an answer.", _POINT)
BEST_OF_N_GOLD = Gauge("assay_evaluation_best_of_n_gold_score", "Mean gold score of the answers a reward model chooses among n.", _CHOICE)
BEST_OF_N_PROXY = Gauge("assay_evaluation_best_of_n_proxy_score", "Mean score of the answers it chooses by the model itself.", _CHOICE)
BEST_OF_N_KL = Gauge("assay_evaluation_best_of_n_kl_nats", "Divergence of choosing among n from answering once.", _CHOICE)


def show_policies(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Shows the policies of an evaluation.

    Args:
        figures: by the policy's name, as `PolicyMetrics.as_dict` gives them.
    """
    with _changing:
        for gauge in (POLICY_GOLD, POLICY_KL, POLICY_WINS):
            gauge.clear()
        for policy, found in figures.items():
            POLICY_GOLD.set([policy], found["gold"])
            POLICY_KL.set([policy], found["kl"])
            if "win_rate" in found:
                POLICY_WINS.set([policy], found["win_rate"])


def show_snapshots(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Shows the points of an evaluation's curves: rollout, kl and gold, by policy."""
    with _changing:
        SNAPSHOT_GOLD.clear()
        SNAPSHOT_KL.clear()
        for policy, points in curves.items():
            for point in points:
                labels = (policy, str(point["rollout"]))
                SNAPSHOT_GOLD.labels(*labels).set(point["gold"]["value"])
                SNAPSHOT_KL.labels(*labels).set(point["kl"])


def show_best_of_n(curves: Mapping[str, Mapping[str, Any]]) -> None:
    """Shows the points of best-of-n: n, kl, gold and proxy, by reward model."""
    with _changing:
        for gauge in (BEST_OF_N_GOLD, BEST_OF_N_PROXY, BEST_OF_N_KL):
            gauge.clear()
        for reward_model, curve in curves.items():
            for point in curve["points"]:
                labels = (reward_model, str(point["n"]))
                BEST_OF_N_GOLD.labels(*labels).set(point["gold"]["value"])
                BEST_OF_N_PROXY.labels(*labels).set(point["proxy"]["value"])
                BEST_OF_N_KL.labels(*labels).set(point["kl"])
