"""What the newest evaluation found is all that Prometheus is told."""

from prometheus_client import REGISTRY, generate_latest

from assay_evaluation.newest import show_best_of_n, show_policies, show_snapshots


def estimate(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.2}


def series(start):
    lines = generate_latest(REGISTRY).decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start)}


def test_a_policy_has_its_gold_and_kl_with_intervals_and_the_reference_beats_nobody():
    show_policies(
        {"sft": {"gold": estimate(0.5), "kl": estimate(0)}, "dpo": {"gold": estimate(1), "kl": estimate(2), "win_rate": estimate(0.7)}}
    )
    assert series("assay_evaluation_policy_gold_score{") == {
        'assay_evaluation_policy_gold_score{policy="sft"}': 0.5,
        'assay_evaluation_policy_gold_score{policy="dpo"}': 1.0,
    }
    assert series('assay_evaluation_policy_kl_nats_low{policy="dpo"}') == {'assay_evaluation_policy_kl_nats_low{policy="dpo"}': 1.9}
    assert list(series("assay_evaluation_policy_win_ratio_high{")) == ['assay_evaluation_policy_win_ratio_high{policy="dpo"}']


def test_the_next_evaluation_takes_the_place_of_the_one_before():
    show_policies({"old": {"gold": estimate(0.5), "kl": estimate(0)}})
    show_policies({"new": {"gold": estimate(0.5), "kl": estimate(0)}})
    show_snapshots({"ppo": [{"rollout": 0, "kl": 0.0, "gold": estimate(1)}, {"rollout": 2, "kl": 3.0, "gold": estimate(2)}]})
    show_snapshots({"ppo": [{"rollout": 4, "kl": 5.0, "gold": estimate(3)}]})
    show_best_of_n({"rm": {"points": [{"n": 1, "kl": 0.0, "gold": estimate(1), "proxy": estimate(2)}]}})
    show_best_of_n({"rm": {"points": [{"n": 4, "kl": 0.6, "gold": estimate(3), "proxy": estimate(4)}]}})
    assert set(series("assay_evaluation_policy_")) == {
        f'assay_evaluation_policy_{name}{bound}{{policy="new"}}' for name in ("gold_score", "kl_nats") for bound in ("", "_low", "_high")
    }
    assert series("assay_evaluation_snapshot_") == {
        'assay_evaluation_snapshot_gold_score{policy="ppo",rollout="4"}': 3.0,
        'assay_evaluation_snapshot_kl_nats{policy="ppo",rollout="4"}': 5.0,
    }
    assert series("assay_evaluation_best_of_n_") == {
        'assay_evaluation_best_of_n_gold_score{n="4",reward_model="rm"}': 3.0,
        'assay_evaluation_best_of_n_proxy_score{n="4",reward_model="rm"}': 4.0,
        'assay_evaluation_best_of_n_kl_nats{n="4",reward_model="rm"}': 0.6,
    }
