"""A real Prometheus scrapes the five real services under a short real load: every panel and every rule has something to show.

Only the GPU is not real, since there is none here: the row of the DCGM exporter's metrics is fed by a page of its published metric names
(monitoring/dcgm.py). What is proven of that row is its queries, their labels and the join with our own queue, not the exporter.
"""

import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
import yaml

from monitoring.generate import FOLDER
from monitoring.prometheus import RULES
from monitoring.queries import panels_of, seen
from monitoring.watched import watched

pytestmark = [
    pytest.mark.timeout(420),
    pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: install the package prometheus"),
]
BOARDS = sorted(FOLDER.glob("*.json"))
GPU_ROW = "GPU (metrics of the NVIDIA DCGM exporter)"
SERVICES = ("cleaning", "reward", "policy", "training", "evaluation")


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with watched(tmp_path_factory.mktemp("watched")) as found:
        yield found


def without_data(services, path, *, gpu):
    panels = [panel for panel in panels_of(json.loads(path.read_text())) if (panel.row == GPU_ROW) is gpu]
    return [
        f"{panel.title}: {target.expr}"
        for panel in panels
        for target in panel.targets
        if not any(series.points for series in seen(services.prometheus, target, start=services.start, end=services.end))
    ]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_query_of_every_panel_has_data_of_the_real_services(services, path):
    assert without_data(services, path, gpu=False) == []


def test_the_gpu_row_has_data_where_the_page_of_published_dcgm_names_stands_in_for_a_gpu(services):
    assert without_data(services, FOLDER / "assay-reward-serving.json", gpu=True) == []


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_variable_of_a_dashboard_has_values(services, path):
    for variable in json.loads(path.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()
            metric = re.sub(r"\$\w+", ".*", metric)
            values = services.prometheus.ask(f"label/{label}/values", **{"match[]": metric, "start": services.start, "end": services.end})
            assert values, variable["name"]


@pytest.mark.parametrize("path", sorted(RULES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recording_rule_gives_data_and_every_rule_is_evaluated_without_error(services, path):
    records = [rule["record"] for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"] if "record" in rule]
    empty = [
        name for name in records if not any(one.points for one in services.prometheus.series(name, start=services.start, end=services.end))
    ]
    assert empty == []
    for group in services.prometheus.ask("rules")["groups"]:
        if Path(group["file"]).name == path.name:
            assert [(rule["name"], rule["lastError"]) for rule in group["rules"] if rule["health"] != "ok"] == []


def test_what_went_wrong_under_load_raises_the_alerts_that_need_no_patience(services):
    firing = {alert["labels"]["alertname"]: alert for alert in services.prometheus.ask("alerts")["alerts"] if alert["state"] == "firing"}
    assert {"AssayDeadLetters", "AssayGateOverridden"} <= set(firing)
    notes = firing["AssayDeadLetters"]["annotations"]
    assert "assay.preferences.raw.v1" in notes["summary"] and "assay-cleaning in assay" in notes["description"]
    assert not {name for name in firing if firing[name]["labels"]["severity"] == "critical"}


@pytest.mark.parametrize("name", SERVICES)
def test_promtool_finds_nothing_to_mend_in_a_service_s_metrics(services, name):
    page = urllib.request.urlopen(services.pages[name], timeout=10).read()
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr.decode(), done.stdout.decode()) == (0, "", "")


def test_every_service_is_scraped(services):
    up = services.prometheus.series('max_over_time(up{job=~"assay-.+"}[10s])', start=services.end - 5, end=services.end)
    assert {series.labels["job"] for series in up} == {f"assay-{name}" for name in SERVICES}
    assert all(value == 1 for series in up for _, value in series.points)
