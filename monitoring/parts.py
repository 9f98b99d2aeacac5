"""The kinds of panel that our dashboards are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, heatmap, prometheus, stat, table, timeseries, xychart
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models import prometheus as prometheus_model
from grafana_foundation_sdk.models import xychart as xychart_model

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
IN = 'namespace=~"$namespace", job=~"$job", instance=~"$instance"'
"""What every query of a service's metrics is narrowed to: the dashboard's variables."""
RATE = "$__rate_interval"

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
Steps = Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Query:
    """PromQL with the legend of its series.

    Attributes:
        expr: the expression; dashboards' variables stand in it.
        legend: of a series, with labels as {{label}}.
    """

    expr: str
    legend: str = ""


def lines(
    title: str,
    about: str,
    *queries: Query,
    unit: str = "short",
    width: int = 8,
    stacked: bool = False,
    minimum: float | None = 0,
    maximum: float | None = None,
    steps: Steps = (),
    log: bool = False,
    points: bool = False,
) -> Any:
    """Series over time; `steps` are thresholds (from, colour) that are drawn as lines."""
    panel = _filled(timeseries.Panel(), title, about, queries, unit=unit, width=width, steps=steps)
    panel.legend(common.VizLegendOptions().display_mode(common_model.LegendDisplayMode.LIST).placement(common_model.LegendPlacement.BOTTOM))
    panel.tooltip(common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI).sort(common_model.SortOrder.DESCENDING))
    panel.line_width(1).fill_opacity(25 if stacked else 8).show_points(
        common_model.VisibilityMode.ALWAYS if points else common_model.VisibilityMode.NEVER
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL))
    if minimum is not None:
        panel.min(minimum)
    if maximum is not None:
        panel.max(maximum)
    if steps:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(common_model.GraphTresholdsStyleMode.DASHED))
    if log:
        panel.scale_distribution(common.ScaleDistributionConfig().type(common_model.ScaleDistribution.LOG).log(2))
    return panel


def number(
    title: str,
    about: str,
    query: Query,
    *,
    unit: str = "short",
    width: int = 3,
    steps: Steps = (),
    decimals: int | None = None,
    url: str = "",
) -> Any:
    """The newest value, large, with its course behind it; `url` is where a click leads."""
    panel = _filled(stat.Panel(), title, about, [query], unit=unit, width=width, height=4, steps=steps)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).graph_mode(common_model.BigValueGraphMode.AREA)
    panel.color_mode(common_model.BigValueColorMode.VALUE if steps else common_model.BigValueColorMode.NONE)
    if decimals is not None:
        panel.decimals(decimals)
    if url:
        panel.links([build.DashboardLink(title).type(model.DashboardLinkType.LINK).url(url).keep_time(True).include_vars(True)])
    return panel


def bars(
    title: str,
    about: str,
    query: Query,
    *,
    unit: str = "short",
    width: int = 8,
    steps: Steps = (),
    minimum: float | None = 0,
    maximum: float | None = None,
) -> Any:
    """The newest value of each series as a bar."""
    panel = _filled(bargauge.Panel(), title, about, [query], unit=unit, width=width, steps=steps, instant=True)
    panel.orientation(common_model.VizOrientation.HORIZONTAL).display_mode(common_model.BarGaugeDisplayMode.BASIC)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if minimum is not None:
        panel.min(minimum)
    if maximum is not None:
        panel.max(maximum)
    return panel


def heat(title: str, about: str, query: Query, *, unit: str = "s", width: int = 8) -> Any:
    """A histogram's buckets over time; the query gives one series a bucket, by `le`."""
    panel = _base(heatmap.Panel(), title, about, width=width, height=8)
    panel.with_target(_target(query, "A").format(prometheus_model.PromQueryFormat.HEATMAP))
    panel.calculate(False).cell_gap(1).y_axis(heatmap.YAxisConfig().unit(unit))
    panel.color(heatmap.HeatmapColorOptions().mode(heatmap_model.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
    return panel


def rows(
    title: str, about: str, columns: Mapping[str, tuple[Query, str]], *, hidden: Sequence[str] = (), width: int = 24, height: int = 7
) -> Any:
    """A table, a row for each set of labels.

    Args:
        title: of the panel.
        about: its description.
        columns: title of a column to its query and unit; the first decides which rows there are.
        hidden: labels that are not shown.
        width: of 24.
        height: in rows of the grid.
    """
    panel = _base(table.Panel(), title, about, width=width, height=height)
    renamed, shown = {}, {"Time": True, **dict.fromkeys(hidden, True)}
    for index, (name, (query, unit)) in enumerate(columns.items()):
        ref = chr(ord("A") + index)
        panel.with_target(_target(query, ref, instant=True).format(prometheus_model.PromQueryFormat.TABLE))
        renamed[f"Value #{ref}" if len(columns) > 1 else "Value"] = name
        panel.override_by_name(name, [model.DynamicConfigValue(id_val="unit", value=unit)])
    panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(model.DataTransformerConfig(id_val="organize", options={"excludeByName": shown, "renameByName": renamed}))
    return panel


def scatter(title: str, about: str, x: tuple[str, Query, str], y: tuple[str, Query, str], *, width: int = 12) -> Any:
    """One query against another, joined by their labels; each is a title, a query and a unit."""
    panel = _base(xychart.Panel(), title, about, width=width, height=9)
    renamed = {}
    for ref, (name, query, unit) in (("A", x), ("B", y)):
        panel.with_target(_target(query, ref, instant=True).format(prometheus_model.PromQueryFormat.TABLE))
        renamed[f"Value #{ref}"] = name
        panel.override_by_name(name, [model.DynamicConfigValue(id_val="unit", value=unit)])
    panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        model.DataTransformerConfig(id_val="organize", options={"excludeByName": {"Time": True}, "renameByName": renamed})
    )
    panel.series_mapping(xychart_model.SeriesMapping.MANUAL)
    panel.series([xychart.ScatterSeriesConfig().x(x[0]).y(y[0]).show(xychart_model.ScatterShow.POINTS)])
    return panel


def _base(panel: Any, title: str, about: str, *, width: int, height: int) -> Any:
    return panel.title(title).description(about).datasource(SOURCE).span(width).height(height)


def _filled(
    panel: Any,
    title: str,
    about: str,
    queries: Sequence[Query],
    *,
    unit: str,
    width: int,
    height: int = 8,
    steps: Steps,
    instant: bool = False,
) -> Any:
    _base(panel, title, about, width=width, height=height).unit(unit)
    for index, query in enumerate(queries):
        panel.with_target(_target(query, chr(ord("A") + index), instant=instant))
    colours = [model.Threshold(value=None, color=GREEN), *(model.Threshold(value=start, color=colour) for start, colour in steps)]
    panel.thresholds(build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(colours))
    return panel


def _target(query: Query, ref: str, *, instant: bool = False) -> Any:
    target = prometheus.Dataquery().expr(query.expr).ref_id(ref).legend_format(query.legend or "__auto")
    return target.instant() if instant else target.range()
