"""Whether the scores can be trusted: quality cards, drift, shadows, the gate."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.board import board
from monitoring.parts import IN, RATE, RED, YELLOW, Query, bars, heat, lines, number, rows

_MODEL = f'{IN}, model=~"$model"'
_BY = "model, revision"


def made() -> Dashboard:
    """The dashboard."""
    return board(
        "assay-reward-quality",
        "Reward quality",
        "What the reward models' quality cards say, whether their traffic still looks like what they were measured on, "
        "and how a candidate compares.",
        lists="assay_reward_queue_capacity",
        variables=[("model", "model", 'assay_reward_model_ready{namespace=~"$namespace", job=~"$job"}, model')],
        rows=[
            ("Quality cards", _cards()),
            ("Scores", _scores()),
            ("Drift", _drift()),
            ("A candidate beside a model (shadow)", _shadow()),
            ("Generative judges", _judges()),
        ],
    )


def _of(metric: str) -> str:
    return f"max by ({_BY}) ({metric}{{{_MODEL}}})"


def _bounded(metric: str, share: str = _MODEL, by: str = _BY) -> list[Query]:
    legend = "{{model}}" if by == _BY else "{{model}} / {{candidate}}"
    return [
        Query(f"max by ({by}) ({metric}{{{share}}})", legend),
        Query(f"min by ({by}) ({metric}_low{{{share}}})", f"{legend}, low"),
        Query(f"max by ({by}) ({metric}_high{{{share}}})", f"{legend}, high"),
    ]


def _cards() -> list[object]:
    return [
        number(
            "Models without a card",
            "Models that score and were never measured.",
            Query(
                f"count(max by ({_BY}) (assay_reward_model_ready{{{_MODEL}}}) == 1 unless on ({_BY}) "
                f"assay_reward_model_card_age_seconds{{{_MODEL}}}) or vector(0)"
            ),
            width=6,
            steps=[(1, YELLOW)],
        ),
        number(
            "Trainings against the gate",
            "Trainings that went on although the reward model failed the gate, within a day.",
            Query('sum(increase(assay_training_gate_overrides_total{namespace=~"$namespace"}[1d]))'),
            width=6,
            steps=[(1, YELLOW)],
            decimals=0,
        ),
        number(
            "Scores",
            "Candidates scored by the models.",
            Query(f"sum(rate(assay_reward_candidates_total{{{_MODEL}}}[{RATE}]))"),
            unit="cps",
            width=6,
            decimals=1,
        ),
        number(
            "Models that drift",
            "Models of which both figures of drift are above what chance gives.",
            Query(
                f"count(max by ({_BY}) (assay_reward_drift_psi{{{_MODEL}}} - assay_reward_drift_psi_critical) > 0 "
                f"and max by ({_BY}) (assay_reward_drift_ks{{{_MODEL}}} - assay_reward_drift_ks_critical) > 0) or vector(0)"
            ),
            width=6,
            steps=[(1, YELLOW)],
        ),
        rows(
            "Models",
            "Each model that is loaded, with the accuracy that its quality card states and how old the card is. A "
            "model without a card has no figures.",
            {
                "ready": (Query(_of("assay_reward_model_ready")), "short"),
                "accuracy": (Query(_of("assay_reward_model_accuracy")), "percentunit"),
                "lower bound": (Query(_of("assay_reward_model_accuracy_low")), "percentunit"),
                "upper bound": (Query(_of("assay_reward_model_accuracy_high")), "percentunit"),
                "card's age": (Query(_of("assay_reward_model_card_age_seconds")), "s"),
            },
            width=16,
            height=8,
        ),
        lines(
            "Lower bound of accuracy",
            "Lower bound of the 95 % interval of the accuracy on held-out pairs: what the gate asks for. At one half a "
            "model is no better than a coin.",
            Query(_of("assay_reward_model_accuracy_low"), "{{model}} {{revision}}"),
            unit="percentunit",
            width=8,
            steps=[(0.5, RED)],
            minimum=None,
        ),
    ]


def _scores() -> list[object]:
    buckets = f"assay_reward_score_bucket{{{_MODEL}}}"
    return [
        lines(
            "Median and tails of the raw scores",
            "10th, 50th and 90th percentile of the raw scores served, read off buckets.",
            *[
                Query(f"histogram_quantile({q}, sum by (model, le) (rate({buckets}[{RATE}])))", f"{{{{model}}}} p{round(100 * q)}")
                for q in (0.1, 0.5, 0.9)
            ],
            width=10,
            minimum=None,
        ),
        heat(
            "Raw scores",
            "How many raw scores fell into which bucket.",
            Query(f"sum by (le) (increase({buckets}[{RATE}]))", "{{le}}"),
            unit="short",
            width=8,
        ),
        bars(
            "Scores served",
            "Candidates scored within the last hour.",
            Query(f"sum by (model) (increase(assay_reward_candidates_total{{{_MODEL}}}[1h]))", "{{model}}"),
            width=6,
        ),
    ]


def _drift() -> list[object]:
    return [
        lines(
            "Population stability index",
            "Of the newest scores against the card's sample, and what it exceeds in 5 % of windows without drift. By "
            "custom 0.1 is worth a look, 0.25 a drift.",
            Query(_of("assay_reward_drift_psi"), "{{model}}"),
            Query(_of("assay_reward_drift_psi_critical"), "{{model}}, critical"),
            steps=[(0.1, YELLOW), (0.25, RED)],
        ),
        lines(
            "Kolmogorov-Smirnov distance",
            "Of the newest scores from the card's sample, and what it exceeds in 5 % of windows without drift.",
            Query(_of("assay_reward_drift_ks"), "{{model}}"),
            Query(_of("assay_reward_drift_ks_critical"), "{{model}}, critical"),
            maximum=1,
        ),
        lines(
            "Scores in the window",
            "Newest scores of each model that the figures here are told from.",
            Query(_of("assay_reward_drift_scores"), "{{model}}"),
        ),
        lines(
            "Outside the card's range",
            "Share of scores below or above all that the card's sample has, with its 95 % interval.",
            *_bounded("assay_reward_drift_saturation_ratio"),
            unit="percentunit",
        ),
        lines(
            "Truncated inputs",
            "Share of inputs of which tokens were dropped, with its 95 % interval.",
            *_bounded("assay_reward_drift_truncation_ratio"),
            unit="percentunit",
        ),
        lines(
            "Correlation of score and length",
            "Spearman's of raw score and response tokens, with its 95 % interval: a model that is gamed by length shows here.",
            *_bounded("assay_reward_drift_length_correlation"),
            minimum=-1,
            maximum=1,
        ),
    ]


def _shadow() -> list[object]:
    by = "model, candidate"
    return [
        lines(
            "Pairs turned round",
            "Share of pairs whose order the candidate turns round.",
            *_bounded("assay_reward_shadow_flip_rate", by=by),
            unit="percentunit",
            width=6,
        ),
        lines(
            "Rank correlation",
            "Spearman's of the two raw scores.",
            *_bounded("assay_reward_shadow_rank_correlation", by=by),
            width=6,
            minimum=-1,
            maximum=1,
        ),
        lines(
            "Same best answer",
            "Share of groups whose best answer is the same to both.",
            *_bounded("assay_reward_shadow_best_agreement", by=by),
            unit="percentunit",
            width=6,
        ),
        lines(
            "Calls compared",
            "Calls drawn for the candidate, by what became of them; skipped ones found no room.",
            Query(f"sum by (outcome) (rate(assay_reward_shadow_calls_total{{{_MODEL}}}[{RATE}]))", "{{outcome}}"),
            unit="reqps",
            width=6,
        ),
    ]


def _judges() -> list[object]:
    orders = f"assay_reward_judge_comparisons_total{{{IN}}}"
    disagreed = f'assay_reward_judge_comparisons_total{{{IN}, outcome="disagreed"}}'
    share = f"sum by (judge) (rate({disagreed}[{RATE}])) / sum by (judge) (rate({orders}[{RATE}]))"
    return [
        lines(
            "Pairs on which a judge contradicts itself",
            "Share of the pairs shown in both orders on which the verdict follows the place: a judge that guesses has about one half.",
            Query(share, "{{judge}}"),
            unit="percentunit",
            maximum=1,
            width=12,
            steps=[(0.3, YELLOW), (0.5, RED)],
        ),
        lines(
            "Pairs shown in both orders",
            "By whether the judge agreed with itself.",
            Query(f"sum by (judge, outcome) (rate({orders}[{RATE}]))", "{{judge}} {{outcome}}"),
            unit="cps",
            width=12,
            stacked=True,
        ),
    ]
