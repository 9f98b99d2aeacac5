"""How training goes, and whether a higher reward is still a better policy."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.board import board
from monitoring.parts import IN, RATE, RED, YELLOW, Query, bars, lines, number, rows, scatter

_SPACE = 'namespace=~"$namespace"'
_RUN = "{{algorithm}} {{slot}}"


def made() -> Dashboard:
    """The dashboard."""
    return board(
        "assay-training",
        "Training and Goodhart",
        "Runs at work step by step, and what gold says of the policies that came out: where the reward rises and gold "
        "falls, the reward model is being gamed.",
        lists="assay_training_jobs",
        rows=[
            ("Runs at work", _runs()),
            ("Reward and divergence of the policy in training", _reward()),
            ("Goodhart: what gold says (the newest evaluation)", _goodhart()),
            ("Generation and studies", _around()),
        ],
    )


def _run(name: str) -> Query:
    return Query(f"assay_training_run_{name}{{{IN}}}", _RUN)


def _runs() -> list[object]:
    return [
        number("Training", "Runs at work.", Query(f'sum(assay_training_jobs{{{IN}, state="training"}})')),
        number("Waiting", "Jobs that wait for room.", Query(f'sum(assay_training_jobs{{{IN}, state="waiting"}})'), steps=[(5, YELLOW)]),
        number(
            "Longest silence",
            "Longest time since a run at work last told of progress; half an hour raises an alert.",
            Query(f"max(time() - assay_training_run_progress_timestamp_seconds{{{IN}}})"),
            unit="s",
            steps=[(600, YELLOW), (1800, RED)],
        ),
        number(
            "Runs killed, 1 d",
            "Runs started again after their process was killed.",
            Query(f"sum(increase(assay_training_restarts_total{{{IN}}}[1d]))"),
            steps=[(1, YELLOW)],
            decimals=0,
        ),
        number(
            "Gate refused, 1 d",
            "Trainings that the gate refused.",
            Query(f"sum(increase(assay_training_gate_refusals_total{{{IN}}}[1d]))"),
            decimals=0,
        ),
        number(
            "Gate overridden, 1 d",
            "Trainings that went on although the reward model failed the gate.",
            Query(f"sum(increase(assay_training_gate_overrides_total{{{IN}}}[1d]))"),
            steps=[(1, YELLOW)],
            decimals=0,
        ),
        number(
            "Steps",
            "Optimiser steps a second, of all runs.",
            Query(f"sum(rate(assay_training_steps_total{{{IN}}}[{RATE}]))"),
            unit="ops",
            decimals=2,
            width=6,
        ),
        lines(
            "Progress",
            "Step that each run has come to, of those it is to take.",
            Query(f"assay_training_run_step{{{IN}}} / assay_training_run_planned_steps{{{IN}}}", _RUN),
            unit="percentunit",
            maximum=1,
        ),
        lines("Loss", "Of the newest step.", _run("loss"), minimum=None),
        lines("Norm of the gradient", "Of the newest step.", _run("gradient_norm")),
        lines(
            "Pairs the right way round",
            "Share of the newest pairs, of reward models and DPO in training; one half is a coin.",
            _run("preference_accuracy_ratio"),
            unit="percentunit",
            maximum=1,
        ),
        lines(
            "Steps",
            "Optimiser steps a second.",
            Query(f"sum by (algorithm) (rate(assay_training_steps_total{{{IN}}}[{RATE}]))", "{{algorithm}}"),
            unit="ops",
        ),
        lines("Entropy", "Of the policy in training, nats a token: towards 0 it has one answer left.", _run("entropy_nats")),
    ]


def _reward() -> list[object]:
    return [
        lines(
            "Reward",
            "Mean raw score of the newest answers by the reward model that is trained against.",
            _run("reward"),
            minimum=None,
            width=6,
        ),
        lines("Divergence", "KL from the policy the run started from, nats an answer.", _run("kl_nats"), minimum=None, width=6),
        lines(
            "Length of answers",
            "Mean tokens of the newest answers; a length bias of the reward model shows here.",
            _run("answer_tokens"),
            width=6,
        ),
        lines(
            "Clipped and scored",
            "Share of tokens whose update was clipped, and of answers that the reward service scored.",
            Query(f"assay_training_run_clipped_ratio{{{IN}}}", f"{_RUN} clipped"),
            Query(f"assay_training_run_scored_ratio{{{IN}}}", f"{_RUN} scored"),
            unit="percentunit",
            maximum=1,
            width=6,
        ),
    ]


def _newest(metric: str, by: str) -> Query:
    return Query(f"max by ({by}) ({metric}{{{_SPACE}}})")


def _goodhart() -> list[object]:
    return [
        scatter(
            "Gold against divergence, on the way of PPO",
            "Gold score of the policy after some rollouts against its KL from the start. While gold rises with KL, "
            "optimisation helps; where it turns, the reward model is being gamed.",
            ("KL", _newest("assay_evaluation_snapshot_kl_nats", "policy, rollout"), "short"),
            ("gold", _newest("assay_evaluation_snapshot_gold_score", "policy, rollout"), "short"),
        ),
        scatter(
            "Gold against divergence, best of n",
            "Gold score of the answers that a reward model chooses among n = 1, 2, 4, … against the KL of choosing.",
            ("KL", _newest("assay_evaluation_best_of_n_kl_nats", "reward_model, n"), "short"),
            ("gold", _newest("assay_evaluation_best_of_n_gold_score", "reward_model, n"), "short"),
        ),
        rows(
            "Policies",
            "What gold says of each policy of the newest evaluation, with 95 % intervals; wins are against the policy "
            "that all started from.",
            {
                "gold": (_newest("assay_evaluation_policy_gold_score", "policy"), "short"),
                "gold, low": (_newest("assay_evaluation_policy_gold_score_low", "policy"), "short"),
                "gold, high": (_newest("assay_evaluation_policy_gold_score_high", "policy"), "short"),
                "KL": (_newest("assay_evaluation_policy_kl_nats", "policy"), "short"),
                "wins": (_newest("assay_evaluation_policy_win_ratio", "policy"), "percentunit"),
                "wins, low": (_newest("assay_evaluation_policy_win_ratio_low", "policy"), "percentunit"),
                "wins, high": (_newest("assay_evaluation_policy_win_ratio_high", "policy"), "percentunit"),
            },
            width=16,
            height=8,
        ),
        bars(
            "What the reward model promises, best of n",
            "Mean score, by the model that chooses, of the answers chosen. It always rises with n; gold need not.",
            Query(f"max by (reward_model, n) (assay_evaluation_best_of_n_proxy_score{{{_SPACE}}})", "{{reward_model}}, n={{n}}"),
            width=8,
            minimum=None,
        ),
    ]


def _around() -> list[object]:
    return [
        lines(
            "Tokens of the policy service",
            "Read (prompt) and generated (completion) a second.",
            Query(f"sum by (kind) (rate(assay_policy_tokens_total{{{_SPACE}}}[{RATE}]))", "{{kind}}"),
            unit="cps",
            width=6,
        ),
        lines(
            "Answers",
            "By why they end: at the end mark, or at the longest length.",
            Query(f"sum by (finish) (rate(assay_policy_answers_total{{{_SPACE}}}[{RATE}]))", "{{finish}}"),
            unit="cps",
            stacked=True,
            width=6,
        ),
        lines(
            "Time of generation",
            "Of a request for answers, the queue included.",
            Query(f"histogram_quantile(0.5, sum by (le) (rate(assay_policy_generate_seconds_bucket{{{_SPACE}}}[{RATE}])))", "p50"),
            Query(f"histogram_quantile(0.95, sum by (le) (rate(assay_policy_generate_seconds_bucket{{{_SPACE}}}[{RATE}])))", "p95"),
            unit="s",
            width=6,
        ),
        lines(
            "Requests for answers waiting",
            "Or taking turns on the device.",
            Query(f"sum(assay_policy_queue_requests{{{_SPACE}}})", "waiting"),
            width=6,
        ),
        lines(
            "Time of stages",
            "Mean time of the stages of studies that ended, by kind.",
            Query(
                f"sum by (kind) (increase(assay_evaluation_stage_seconds_sum{{{_SPACE}}}[1h])) / sum by (kind) "
                f"(increase(assay_evaluation_stage_seconds_count{{{_SPACE}}}[1h]))",
                "{{kind}}",
            ),
            unit="s",
            width=12,
        ),
        bars(
            "Stages that ended, 1 d",
            "By kind and outcome.",
            Query(
                f"sort_desc(sum by (kind, outcome) (increase(assay_evaluation_stages_total{{{_SPACE}}}[1d])) > 0)", "{{kind}} {{outcome}}"
            ),
            width=12,
        ),
    ]
