"""What Prometheus is told of runs at work, and that nothing is left of those that ended."""

import time

from prometheus_client import REGISTRY, generate_latest

from assay_training.metrics import run_series


def page():
    return generate_latest(REGISTRY).decode()


def value(name, slot):
    return REGISTRY.get_sample_value(f"assay_training_run_{name}", {"algorithm": "ppo", "slot": str(slot)})


def test_runs_at_work_show_how_far_they_are_and_when_they_last_told_of_it():
    began = time.time()
    with run_series("ppo", 0) as first, run_series("ppo", 1):
        first.told("train", 3, 40, {"reward_raw": 1.5, "kl": 0.25, "no such figure": 1.0})
        assert (value("step", 0), value("planned_steps", 0)) == (3, 40)
        assert (value("reward", 0), value("kl_nats", 0), value("loss", 0)) == (1.5, 0.25, None)
        assert began <= value("progress_timestamp_seconds", 1) <= value("progress_timestamp_seconds", 0) <= time.time()
        assert value("step", 1) is None


def test_nothing_is_left_of_a_run_that_ended_or_failed():
    try:
        with run_series("ppo", 2) as series:
            series.told("train", 3, 40, {"reward_raw": 1.5})
            assert 'slot="2"' in page()
            raise ValueError
    except ValueError:
        assert 'slot="2"' not in page()
