"""Draws the dashboards for the docs: python -m monitoring.draw.

The local stack is loaded, a real Prometheus watches, and each panel's own queries are drawn over the time of the load. These are our
drawings of Grafana's dashboards, not pictures of Grafana.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from assay_data.pairs import read_pairs
from monitoring.charts import chart, steps_of, unit_of
from monitoring.generate import FOLDER
from monitoring.load import STUDY
from monitoring.prometheus import Prometheus
from monitoring.queries import Panel, panels_of, seen
from monitoring.units import shown
from monitoring.watched import watched

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "img"
COLUMN, ROW, GAP, TITLE = 58, 27, 6, 26
FONT = "Inter, DejaVu Sans, sans-serif"


def main() -> None:
    """Loads, and draws every dashboard."""
    parser = argparse.ArgumentParser(description="Draw the dashboards over a real load.")
    parser.add_argument("--study", type=Path, default=STUDY, help="study that is run; it has the stages that the load needs")
    parser.add_argument("--data", default="", help="preference pairs; else generated ones")
    parser.add_argument("--limit", type=int, default=2000, help="at most so many pairs of the data")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the study's models are asked after it")
    arguments = parser.parse_args()
    pairs = list(read_pairs(arguments.data, limit=arguments.limit)) if arguments.data else []
    with (
        tempfile.TemporaryDirectory() as folder,
        watched(Path(folder), study=arguments.study, pairs=pairs, seconds=arguments.seconds) as found,
    ):
        draw(found.prometheus, start=found.start, end=found.end)


def draw(prometheus: Prometheus, *, start: float, end: float) -> None:
    """Writes a picture of each dashboard over that time."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for path in sorted(FOLDER.glob("*.json")):
        svg = picture(prometheus, json.loads(path.read_text(encoding="utf-8")), start=start, end=end)
        (PICTURES / f"{path.stem}.png").write_bytes(vl_convert.svg_to_png(svg, scale=1.1))


def picture(prometheus: Prometheus, board: Mapping[str, Any], *, start: float, end: float) -> str:
    """A dashboard as SVG: its title, and each panel in its place on the grid."""
    width = 24 * COLUMN + 2 * GAP
    parts, bottom = [_text(GAP + 4, 26, board["title"], size=17, weight=600)], 0
    for panel in board["panels"]:
        at = panel["gridPos"]
        bottom = max(bottom, at["y"] + at["h"])
        if panel["type"] == "row":
            parts.append(_text(GAP + 4, _top(at["y"]) + 19, panel["title"], size=13, weight=600))
    for one in panels_of(board):
        parts.append(_panel(prometheus, one, start=start, end=end))
    height = _top(bottom) + GAP
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    return "\n".join([frame, f'<rect width="{width}" height="{height}" fill="#f4f5f7"/>', *parts, "</svg>"])


def _panel(prometheus: Prometheus, panel: Panel, *, start: float, end: float) -> str:
    at = panel.json["gridPos"]
    x, y, width, height = GAP + at["x"] * COLUMN, _top(at["y"]), at["w"] * COLUMN - GAP, at["h"] * ROW - GAP
    step = max(1.0, round((end - start) / 240))
    found = [(target, seen(prometheus, target, start=start, end=end, step=step)) for target in panel.targets]
    parts = [
        f'<g transform="translate({x},{y})">',
        f'<rect width="{width}" height="{height}" rx="3" fill="#fff" stroke="#e0e2e7"/>',
        _text(9, 18, panel.title, size=11.5, weight=600),
    ]
    if panel.json["type"] == "stat":
        parts.append(_number(panel, found, width=width, height=height))
    elif panel.json["type"] == "table":
        parts.append(_table(panel, found, width=width, height=height))
    else:
        made = chart(panel, found, width=width - 12, height=height - TITLE - 4, start=start, end=end)
        inner = vl_convert.vegalite_to_svg(made.to_dict(), vl_version=".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2]))
        # Names within a picture are unique only there.
        inner = re.sub(r"\b(clip\d+|gradient_\d+)", lambda match: f"{match[0]}_{at['x']}_{at['y']}", inner)
        parts.append(f'<g transform="translate(6,{TITLE})">{inner}</g>')
    return "\n".join([*parts, "</g>"])


def _number(panel: Panel, found: Any, *, width: int, height: int) -> str:
    [(_, series)] = found
    points = series[0].points if series else []
    value = points[-1][1] if points else float("nan")
    steps = steps_of(panel)
    colour = "#1f2329"
    if steps:
        colour = next((colour for start, colour in reversed(steps) if value >= start), "#73bf69")
    unit, decimals = unit_of(panel), panel.json["fieldConfig"]["defaults"].get("decimals")
    text = shown(round(value, int(decimals)) if decimals is not None else value, unit) if points else "no data"
    return _spark(points, colour, width=width, height=height) + _text(
        width / 2, height / 2 + 14, text, size=23, weight=600, colour=colour, anchor="middle"
    )


def _spark(points: Any, colour: str, *, width: int, height: int) -> str:
    if len(points) < 2:
        return ""
    values = [value for _, value in points]
    low, span = min(values), max(values) - min(values) or 1.0
    first, last = points[0][0], points[-1][0]
    path = " ".join(
        f"{1 + (width - 2) * (at - first) / (last - first):.1f},{height - 2 - 24 * (value - low) / span:.1f}" for at, value in points
    )
    return f'<polygon points="1,{height - 1} {path} {width - 1},{height - 1}" fill="{colour}" opacity="0.15"/>'


def _table(panel: Panel, found: Any, *, width: int, height: int) -> str:
    rename = next(one for one in panel.json["transformations"] if one["id"] == "organize")["options"]["renameByName"]
    units = {one["matcher"]["options"]: one["properties"][0]["value"] for one in panel.json["fieldConfig"]["overrides"]}
    rows: dict[frozenset[tuple[str, str]], dict[str, str]] = {}
    for target, series in found:
        column = rename.get(f"Value #{target.ref}") or rename["Value"]
        for one in series:
            row = rows.setdefault(frozenset(one.labels.items()), dict(one.labels))
            row[column] = shown(one.points[-1][1], units[column]) if one.points else ""
    labels = list(dict.fromkeys(name for key in rows for name, _ in sorted(key)))
    columns = [*labels, *rename.values()]
    across = (width - 20) / max(1, len(columns))
    parts = [_text(10 + across * index, TITLE + 16, name, size=10.5, weight=600, colour="#5b626d") for index, name in enumerate(columns)]
    for line, row in enumerate(sorted(rows.values(), key=lambda row: [row.get(name, "") for name in labels])):
        down = TITLE + 37 + 20 * line
        if down > height - 4:
            break
        parts.append(f'<line x1="8" x2="{width - 8}" y1="{down - 14}" y2="{down - 14}" stroke="#eceef1"/>')
        parts += [
            _text(10 + across * index, down, _cut(row.get(name, ""), int(across / 6.2)), size=10.5) for index, name in enumerate(columns)
        ]
    return "".join(parts)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: max(1, longest - 1)] + "…"


def _text(x: float, y: float, text: str, *, size: float, weight: int = 400, colour: str = "#24292e", anchor: str = "start") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-family="{FONT}" font-size="{size:g}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{html.escape(text)}</text>'
    )


def _top(row: int) -> int:
    return 38 + row * ROW


if __name__ == "__main__":
    main()
