"""The dashboards as files: what is committed is what the code makes, and every panel says what it is."""

import json
import re

import pytest

from monitoring.generate import FOLDER, generated

BOARDS = sorted(FOLDER.glob("*.json"))


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_what_is_committed_is_what_the_code_makes():
    assert {path.name: path.read_text() for path in BOARDS} == generated(), "run `make chart`"


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_panel_has_a_title_a_description_a_unit_and_the_dashboard_s_data_source(path):
    board = json.loads(path.read_text())
    assert board["uid"] == path.stem and board["description"]
    assert [variable["name"] for variable in board["templating"]["list"]][:4] == ["datasource", "namespace", "job", "instance"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels(board):
        assert panel["title"] and panel["description"].endswith("."), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        units = {panel["fieldConfig"]["defaults"].get("unit")} | {
            wish["value"] for override in panel["fieldConfig"]["overrides"] for wish in override["properties"] if wish["id"] == "unit"
        }
        assert units - {None} or panel["type"] == "heatmap", panel["title"]
        assert panel["targets"]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_the_panels_lie_side_by_side_without_covering_each_other(path):
    taken = set()
    for panel in json.loads(path.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_the_queries_use_only_variables_that_the_dashboard_has(path):
    board = json.loads(path.read_text())
    known = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval"}
    queries = [target["expr"] for panel in panels(board) for target in panel["targets"]]
    assert set(re.findall(r"\$(\w+)", " ".join(queries))) <= known


def test_links_lead_to_dashboards_that_there_are():
    uids = {path.stem for path in BOARDS}
    for path in BOARDS:
        for panel in panels(json.loads(path.read_text())):
            for link in panel.get("links", []):
                assert link["url"].removeprefix("/d/") in uids
