"""A panel of a dashboard as a picture: Vega-Lite over what its own queries gave. Not Grafana, but the same numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from monitoring.prometheus import Series
from monitoring.queries import Panel, Target
from monitoring.units import shown

COLOURS = [
    "#5794f2",
    "#ff9830",
    "#73bf69",
    "#f2495c",
    "#b877d9",
    "#fade2a",
    "#8ab8ff",
    "#ffb357",
    "#96d98d",
    "#ff7383",
    "#ca95e5",
    "#c4162a",
]
_STEP_COLOURS = {"green": "#73bf69", "yellow": "#e0a800", "red": "#f2495c", "blue": "#5794f2"}
_LEGEND_ROWS = 10

Found = Sequence[tuple[Target, Sequence[Series]]]


def chart(panel: Panel, found: Found, *, width: int, height: int, start: float, end: float) -> alt.TopLevelMixin:
    """The picture of a panel of that size in pixels, with axes and legend inside."""
    kind = panel.json["type"]
    if kind == "heatmap":
        return _heat(panel, found, width=width, height=height)
    if kind == "xychart":
        return _scatter(panel, found, width=width, height=height)
    if kind == "bargauge":
        return _bars(panel, found, width=width, height=height)
    return _lines(panel, found, width=width, height=height, start=start, end=end)


def legend_of(target: Target, labels: Mapping[str, str]) -> str:
    """What a series is called: the legend with its labels in, as Grafana fills it."""
    if target.legend in ("", "__auto"):
        return ", ".join(f"{name}={value}" for name, value in labels.items() if name != "__name__") or target.ref
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), target.legend).strip()


def unit_of(panel: Panel) -> str:
    """The unit of a panel's values."""
    return str(panel.json["fieldConfig"]["defaults"].get("unit", "short"))


def steps_of(panel: Panel) -> list[tuple[float, str]]:
    """A panel's thresholds above the base: from which value, and the colour."""
    steps = panel.json["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    return [(float(step["value"]), _STEP_COLOURS[step["color"]]) for step in steps if step["value"] is not None]


def _lines(panel: Panel, found: Found, *, width: int, height: int, start: float, end: float) -> alt.TopLevelMixin:
    defaults = panel.json["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    log = custom.get("scaleDistribution", {}).get("type") == "log"
    rows = _rows(found, start)
    names = list(dict.fromkeys(row["series"] for row in rows))
    low, high = defaults.get("min"), defaults.get("max")
    values = [row["value"] for row in rows]
    steps = steps_of(panel) if custom.get("thresholdsStyle") else []
    # A threshold far above the values would press them flat; the first one is shown where there is nothing but zeros.
    steps = [step for index, step in enumerate(steps) if step[0] <= 2.5 * max(values, default=0) or (index == 0 and not any(values))]
    unit = unit_of(panel)
    if log:
        scale, axis = alt.Scale(type="log", nice=False), _axis(unit, values=[10.0**power for power in range(-4, 4)])
    elif high is not None:
        scale, axis = alt.Scale(domain=[low or 0, high]), _axis(unit)
    else:
        top = alt.Undefined if any(values) or steps else 1
        scale = alt.Scale(zero=low == 0, domainMin=alt.Undefined if low is None else low, domainMax=top)
        axis = _axis(unit, values=_byte_ticks(max(values, default=0))) if unit == "bytes" and not stacked else _axis(unit)
    y = alt.Y("value:Q", title=None, scale=scale, stack="zero" if stacked else None, axis=axis)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X(
            "at:Q",
            title=None,
            scale=alt.Scale(domain=[0, end - start], nice=False),
            axis=alt.Axis(labelExpr="datum.value + ' s'", tickCount=5),
        ),
        y=y,
        color=alt.Color("series:N", sort=names, scale=alt.Scale(domain=names, range=_colours(len(names))), legend=_legend(names, width)),
    )
    if not stacked:
        base = base.encode(detail="part:N")
    drawn = base.mark_area(opacity=0.55, line={"strokeWidth": 1}) if stacked else base.mark_line(strokeWidth=1.4, interpolate="linear")
    layers: list[Any] = [drawn]
    for value, colour in steps:
        rule = alt.Chart(alt.InlineData(values=[{"value": value}])).mark_rule(strokeDash=[5, 4], color=colour, strokeWidth=1.2)
        layers.append(rule.encode(y=alt.Y("value:Q")))
    return _finished(alt.layer(*layers), width=width, height=height)


def _heat(panel: Panel, found: Found, *, width: int, height: int) -> alt.TopLevelMixin:
    [(_, series)] = found
    ordered = sorted(series, key=lambda one: float(one.labels["le"].replace("+Inf", "inf")))
    rows: list[dict[str, Any]] = []
    before: dict[float, float] = {}
    step = _spacing(ordered)
    first = min((point[0] for one in ordered for point in one.points), default=0)
    for one in ordered:
        for at, value in one.points:
            cell = value - before.get(at, 0)
            before[at] = value
            rows.append({"at": round((at - first) / step) * step, "bucket": one.labels["le"], "count": max(0, cell)})
    buckets = [one.labels["le"] for one in ordered]
    filled = [bucket for bucket in buckets if any(row["count"] > 0 for row in rows if row["bucket"] == bucket)]
    kept = buckets[max(0, buckets.index(filled[0]) - 1) : buckets.index(filled[-1]) + 2] if filled else buckets
    rows = [row | {"until": row["at"] + step} for row in rows if row["bucket"] in kept and row["count"] > 0]
    unit = "s" if panel.json["options"]["yAxis"].get("unit") == "s" else ""
    made = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("at:Q", title=None, axis=alt.Axis(labelExpr="datum.value + ' s'", tickCount=5), scale=alt.Scale(nice=False)),
            x2="until:Q",
            y=alt.Y("bucket:N", sort=list(reversed(kept)), title=None, axis=alt.Axis(labelExpr=f"'≤ ' + datum.value + ' {unit}'")),
            color=alt.Color("count:Q", scale=alt.Scale(scheme="oranges"), legend=None),
        )
    )
    return _finished(made, width=width, height=height)


def _scatter(panel: Panel, found: Found, *, width: int, height: int) -> alt.TopLevelMixin:
    (_, across), (_, up) = found
    rename = next(one for one in panel.json["transformations"] if one["id"] == "organize")["options"]["renameByName"]
    heights = {frozenset(one.labels.items()): one.points[-1][1] for one in up if one.points}
    rows: list[dict[str, Any]] = []
    for one in across:
        key = frozenset(one.labels.items())
        if one.points and key in heights:
            inner = [name for name in ("rollout", "n") if name in one.labels]
            rows.append(
                {
                    "x": one.points[-1][1],
                    "y": heights[key],
                    "series": ", ".join(value for name, value in one.labels.items() if name not in inner),
                    "point": float(one.labels[inner[0]]) if inner else 0.0,
                    "label": f"{inner[0]} {one.labels[inner[0]]}" if inner else "",
                }
            )
    rows.sort(key=lambda row: (row["series"], row["point"]))
    names = list(dict.fromkeys(row["series"] for row in rows))
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("x:Q", title=f"{rename['Value #A']} (nats an answer)", scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=6)),
        y=alt.Y("y:Q", title=f"{rename['Value #B']} score", scale=alt.Scale(zero=False, padding=14)),
        color=alt.Color("series:N", scale=alt.Scale(domain=names, range=_colours(len(names))), legend=_legend(names, width)),
    )
    line = base.mark_line(strokeWidth=1, opacity=0.5).encode(order="point:Q")
    text = base.mark_text(dy=-9, fontSize=9).encode(text="label:N")
    return _finished(alt.layer(line, base.mark_circle(size=45, opacity=1), text), width=width, height=height)


def _bars(panel: Panel, found: Found, *, width: int, height: int) -> alt.TopLevelMixin:
    [(target, series)] = found
    unit = unit_of(panel)
    rows = [
        {"series": legend_of(target, one.labels), "value": one.points[-1][1], "shown": shown(one.points[-1][1], unit)}
        for one in series
        if one.points
    ]
    order = [row["series"] for row in rows]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("value:Q", title=None, axis=None, scale=alt.Scale(zero=True, padding=45, nice=False)),
        y=alt.Y("series:N", sort=order, title=None, axis=alt.Axis(domain=False, ticks=False, labelLimit=240)),
    )
    bars = base.mark_bar(color=_STEP_COLOURS["green"], opacity=0.75, cornerRadiusEnd=2)
    return _finished(bars + base.mark_text(align="left", dx=5, fontSize=11).encode(text="shown:N"), width=width, height=height)


def _rows(found: Found, start: float) -> list[dict[str, Any]]:
    """Points of all series; `part` counts up where a series has a gap, over which no line is drawn."""
    rows = []
    for target, series in found:
        widest = 3.5 * _spacing(series)
        for one in series:
            name, part, last = legend_of(target, one.labels), 0, None
            for at, value in one.points:
                part += last is not None and at - last > widest
                rows.append({"at": at - start, "value": value, "series": name, "part": part})
                last = at
    return rows


def _spacing(series: Sequence[Series]) -> float:
    times = sorted({at for one in series for at, _ in one.points})
    return min((later - earlier for earlier, later in zip(times, times[1:], strict=False)), default=1.0)


def _byte_ticks(top: float) -> list[float]:
    """Up to six round values in powers of two from 0 to the top."""
    step = 1.0
    while top / step > 5:
        step *= 2
    return [index * step for index in range(int(top / step) + 2)]


def _axis(unit: str, values: Sequence[float] | None = None) -> alt.Axis:
    expressions = {
        "percentunit": "format(datum.value, '.3~%')",
        "bytes": "datum.value >= 1073741824 ? format(datum.value / 1073741824, ',.3~r') + ' GiB'"
        " : datum.value >= 1048576 ? format(datum.value / 1048576, ',.4~r') + ' MiB' : format(datum.value / 1024, ',.4~r') + ' KiB'",
        "s": "datum.value >= 1 || datum.value == 0 ? format(datum.value, '~') + ' s' : format(datum.value * 1000, '.3~') + ' ms'",
        "watt": "format(datum.value, '~') + ' W'",
    }
    plain = "abs(datum.value) < 1000 ? format(datum.value, '.3~r') : format(datum.value, '.3~s')"
    return alt.Axis(labelExpr=expressions.get(unit, plain), tickCount=5, values=alt.Undefined if values is None else list(values))


def _colours(number: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(max(1, number))]


def _legend(names: Sequence[str], width: int) -> alt.Legend | None:
    if len(names) == 1 and names[0] in ("A", ""):
        return None
    longest = max(map(len, names), default=0)
    columns = max(1, min(len(names), int(width / (longest * 5.6 + 24))))
    shown_names = list(names[: columns * _LEGEND_ROWS])
    return alt.Legend(
        orient="bottom", title=None, columns=columns, labelLimit=width - 40, values=shown_names, symbolType="stroke", symbolStrokeWidth=3
    )


def _finished(made: Any, *, width: int, height: int) -> alt.TopLevelMixin:
    return (
        made.properties(width=width, height=height, autosize=alt.AutoSizeParams(type="fit", contains="padding"), padding=2)
        .configure_view(stroke=None)
        .configure_axis(
            gridColor="#e8eaee",
            domainColor="#c7ccd6",
            tickColor="#c7ccd6",
            labelColor="#464c54",
            labelFontSize=10,
            titleFontSize=10,
            titleColor="#464c54",
        )
        .configure_legend(labelColor="#464c54", labelFontSize=9.5, rowPadding=0, columnPadding=8, symbolSize=70, offset=3)
        .configure(font="Inter, DejaVu Sans, sans-serif", background="transparent")
    )
