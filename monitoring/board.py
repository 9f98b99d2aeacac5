"""A dashboard: its variables, its links, and rows of panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import dashboard as model

from monitoring.parts import SOURCE

TAG = "assay"


def board(
    name: str,
    title: str,
    about: str,
    *,
    lists: str,
    rows: Sequence[tuple[str, Sequence[Any]]],
    variables: Sequence[tuple[str, str, str]] = (),
) -> model.Dashboard:
    """A dashboard with variables for the data source, the namespace, the service of a release and its replicas.

    Args:
        name: its uid, and of its file.
        title: shown after "Assay / ".
        about: what it is for.
        lists: a metric that all services it is about have, which tells namespaces, services and replicas.
        rows: title and panels of each row.
        variables: further ones: name, label, and the metric{…} and label that `label_values` reads.
    """
    made = (
        build.Dashboard(f"Assay / {title}")
        .uid(name)
        .description(about)
        .tags([TAG])
        .readonly()
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            build.DashboardLink("Assay")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(build.DatasourceVariable("datasource").label("data source").type("prometheus"))
        .with_variable(_values("namespace", "namespace", f"label_values({lists}, namespace)"))
        .with_variable(_values("job", "service of a release", f'label_values({lists}{{namespace=~"$namespace"}}, job)'))
        .with_variable(_values("instance", "replica", f'label_values({lists}{{namespace=~"$namespace", job=~"$job"}}, instance)'))
    )
    for variable, label, query in variables:
        made.with_variable(_values(variable, label, f"label_values({query})"))
    for row, panels in rows:
        made.with_row(build.Row(row))
        for panel in panels:
            made.with_panel(panel)
    built = made.build()
    for number, panel in enumerate(built.panels or [], start=1):
        panel.id_val = number
    return built


def _values(name: str, label: str, query: str) -> Any:
    variable = build.QueryVariable(name).label(label).query(query).datasource(SOURCE)
    # ".*" as the value of "all": a Prometheus outside Kubernetes has no label `namespace`, and its series are wanted all the same.
    variable.include_all(True).all_value(".*").multi(True).sort(model.VariableSort.ALPHABETICAL_ASC)
    variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).current(model.VariableOption(text="All", value="$__all", selected=True))
    return variable
