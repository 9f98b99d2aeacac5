"""The report's charts, as Vega-Lite specifications made with Altair; each takes the width of its container."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt

ACTIONS = ["keep", "flip", "drop"]
ACTION_COLORS = ["#3f7d58", "#d9942b", "#b5483a"]
MODEL_COLORS = ["#1f5673", "#d9942b", "#b5483a", "#6a4c93", "#3f7d58", "#7a7a7a"]
QUIET = "#8a8f98"
HEIGHT = 260


def cleaning_chart(cleaning: Mapping[str, Any]) -> dict[str, Any]:
    """Pairs by category, coloured by what was done with them."""
    rows = [
        {"category": category.capitalize(), "action": action, "pairs": count}
        for category, actions in cleaning["category_actions"].items()
        for action, count in actions.items()
        if count
    ]
    order = [category.capitalize() for category in cleaning["category_actions"]]
    bars = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("pairs:Q", title="pairs", axis=alt.Axis(tickCount=8)),
            y=alt.Y("category:N", sort=order, title=None),
            color=alt.Color(
                "action:N", scale=alt.Scale(domain=ACTIONS, range=ACTION_COLORS), legend=alt.Legend(orient="top", title="what was done")
            ),
            tooltip=["category:N", "action:N", "pairs:Q"],
        )
    )
    totals: dict[str, int] = {}
    for row in rows:
        totals[row["category"]] = totals.get(row["category"], 0) + row["pairs"]
    labels = (
        alt.Chart(alt.InlineData(values=[{"category": name, "pairs": total} for name, total in totals.items()]))
        .mark_text(align="left", dx=4, color="#333")
        .encode(x="pairs:Q", y=alt.Y("category:N", sort=order), text=alt.Text("pairs:Q", format=","))
    )
    return _finish(bars + labels, height=220)


def leaderboard_chart(reward_models: Sequence[Mapping[str, Any]], baselines: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracy of each reward model with its interval, and the two baselines as lines."""
    rows = [
        {"model": m["name"], "accuracy": m["accuracy"], "low": m["accuracy_interval"][0], "high": m["accuracy_interval"][1], "n": m["n"]}
        for m in reward_models
    ]
    order = [row["model"] for row in rows]
    base = alt.Chart(alt.InlineData(values=rows)).encode(y=alt.Y("model:N", sort=order, title=None))
    lines = [
        {"baseline": "a coin", "accuracy": baselines["coin"]["value"]},
        {"baseline": "the longer answer wins", "accuracy": baselines["longest_wins"]["value"]},
    ]
    ends = [*(row["low"] for row in rows), *(row["high"] for row in rows), *(line["accuracy"] for line in lines)]
    scale = alt.Scale(domain=[min(0.4, *ends), max(0.8, *ends)], zero=False, nice=True)
    bars = base.mark_rule(strokeWidth=3, color=MODEL_COLORS[0]).encode(
        x=alt.X("low:Q", scale=scale, title="accuracy, with 95 % interval", axis=alt.Axis(format="%", tickCount=8)), x2="high:Q"
    )
    points = base.mark_point(filled=True, size=90, color=MODEL_COLORS[0], opacity=1).encode(
        x=alt.X("accuracy:Q", scale=scale),
        tooltip=[
            "model:N",
            "n:Q",
            alt.Tooltip("accuracy:Q", format=".3f"),
            alt.Tooltip("low:Q", format=".3f"),
            alt.Tooltip("high:Q", format=".3f"),
        ],
    )
    rules = (
        alt.Chart(alt.InlineData(values=lines))
        .mark_rule(strokeDash=[5, 4], strokeWidth=1.5)
        .encode(
            x=alt.X("accuracy:Q", scale=scale, title="accuracy, with 95 % interval"),
            color=alt.Color(
                "baseline:N",
                scale=alt.Scale(domain=[line["baseline"] for line in lines], range=[QUIET, "#d9942b"]),
                legend=alt.Legend(orient="top", title="knows nothing"),
            ),
        )
    )
    return _finish(rules + bars + points, height=max(110, 46 * len(rows)))


def paradigm_chart(
    policies: Sequence[Mapping[str, Any]], accuracies: Mapping[str, Any], *, reference: float | None, gold_range: Sequence[float]
) -> dict[str, Any]:
    """Accuracy of the reward model against the gold score of what came of it, both with intervals.

    Args:
        policies: Policies of one paradigm.
        accuracies: All reward models by name.
        reference: Gold score of the policy before any reward model.
        gold_range: Least and greatest gold score of all paradigms, so that their charts can be compared.
    """
    rows = [
        {
            "model": p["reward_model"],
            "accuracy": accuracies[p["reward_model"]]["accuracy"],
            "accuracy_low": accuracies[p["reward_model"]]["accuracy_interval"][0],
            "accuracy_high": accuracies[p["reward_model"]]["accuracy_interval"][1],
            "gold": p["gold_mean"],
            "low": p["gold_interval"][0],
            "high": p["gold_interval"][1],
        }
        for p in policies
    ]
    base = alt.Chart(alt.InlineData(values=rows))
    x = alt.X(
        "accuracy:Q", title="accuracy of the reward model", scale=alt.Scale(zero=False, padding=16), axis=alt.Axis(format="%", tickCount=5)
    )
    y = alt.Y("gold:Q", title="gold score of the policy", scale=alt.Scale(domain=list(gold_range), nice=True, zero=False))
    color = _color(accuracies)
    line = base.mark_line(color=QUIET, strokeWidth=1.2).encode(x=x, y=y, order="accuracy:Q")
    across = base.mark_rule(strokeWidth=1.5, opacity=0.5).encode(x="accuracy_low:Q", x2="accuracy_high:Q", y="gold:Q", color=color)
    along = base.mark_rule(strokeWidth=2.5).encode(x="accuracy:Q", y="low:Q", y2="high:Q", color=color)
    points = base.mark_point(filled=True, size=90, opacity=1).encode(
        x=x,
        y=y,
        color=color,
        tooltip=["model:N", alt.Tooltip("accuracy:Q", format=".3f"), alt.Tooltip("gold:Q", format=".2f")],
    )
    names = base.mark_text(align="left", dx=8, dy=-8, fontSize=12).encode(x=x, y=y, text="model:N", color=color)
    layers = line + across + along + points + names
    if reference is not None:
        start = alt.Chart(alt.InlineData(values=[{"gold": reference}]))
        layers = start.mark_rule(strokeDash=[5, 4], color=QUIET).encode(y="gold:Q") + layers
    return _finish(layers, height=HEIGHT)


def kl_chart(curves: Mapping[str, Any]) -> dict[str, Any] | None:
    """Gold score against KL to the start, for PPO's snapshots (solid) and best-of-n (dashed); None where there are no curves."""
    names = {"ppo": "PPO", "best_of_n": "best-of-n"}
    rows = [
        {"model": curve["reward_model"], "way": names[way], **{key: point[key] for key in ("kl", "gold", "low", "high")}}
        for way in names
        for curve in curves.get(way, [])
        for point in curve["points"]
    ]
    if not rows:
        return None
    base = alt.Chart(alt.InlineData(values=rows))
    dash = alt.StrokeDash("way:N", scale=alt.Scale(domain=list(names.values()), range=[[1, 0], [5, 4]]), legend=None)
    color = _color({row["model"] for row in rows}, legend=alt.Legend(orient="top", title="reward model", symbolOpacity=1))
    lines = base.mark_line(point=alt.OverlayMarkDef(size=36)).encode(
        x=alt.X("kl:Q", title="KL to the start, nats an answer", axis=alt.Axis(tickCount=8)),
        y=alt.Y("gold:Q", title="gold score", scale=alt.Scale(zero=False)),
        color=color,
        strokeDash=dash,
        order="kl:Q",
        tooltip=["model:N", "way:N", alt.Tooltip("kl:Q", format=".2f"), alt.Tooltip("gold:Q", format=".2f")],
    )
    bars = base.mark_rule(opacity=0.35).encode(x="kl:Q", y="low:Q", y2="high:Q", color=color)
    return _finish(bars + lines, height=340)


def _color(names: Iterable[str], legend: Any = None) -> Any:
    models = sorted(names)
    return alt.Color("model:N", scale=alt.Scale(domain=models, range=MODEL_COLORS[: max(len(models), 1)]), legend=legend)


def _finish(chart: Any, *, height: int) -> dict[str, Any]:
    specification: dict[str, Any] = (
        chart.properties(width="container", height=height)
        .configure_view(stroke=None)
        .configure_axis(labelFontSize=12, titleFontSize=12, grid=True, gridColor="#e8e8e4", titleFontWeight="normal", labelLimit=140)
        .configure_legend(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", columns=3)
        .to_dict()
    )
    return specification
