"""The alert rules as files: each fires where it should and not where it should not, and says what it is about and what to do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "helm" / "assay" / "rules").glob("*.yaml"))
CASES = Path(__file__).with_name("rules")
NEEDS_PROMTOOL = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: install the package prometheus")
HELM = ROOT / ".tools" / "bin" / "helm4"
RUNBOOK = "docs/monitoring.md#"


def alerts(path):
    groups = yaml.safe_load(path.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def promtool(*arguments):
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60)


@NEEDS_PROMTOOL
@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_the_rules_are_what_prometheus_reads(path):
    done = promtool("check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


@NEEDS_PROMTOOL
@pytest.mark.parametrize("path", sorted(CASES.glob("*.test.yaml")), ids=lambda path: path.name.split(".")[0])
def test_the_alerts_fire_where_they_should_and_nowhere_else(path):
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_alert_is_tested_to_fire_and_to_keep_quiet(path):
    tested = [test for file in CASES.glob(f"{path.stem}*.test.yaml") for test in yaml.safe_load(file.read_text())["tests"]]
    checks = [(test, check) for test in tested for check in test["alert_rule_test"]]
    for alert in alerts(path):
        mine = [(test, check) for test, check in checks if check["alertname"] == alert["alert"]]
        assert any(check["exp_alerts"] for _, check in mine), f"no test sees {alert['alert']} fire"
        # Either at another time or in another case, or beside a series of which it keeps quiet.
        quiet = any(not check["exp_alerts"] or len(test["input_series"]) > len(check["exp_alerts"]) for test, check in mine)
        assert quiet, f"no test sees {alert['alert']} keep quiet"


def test_no_group_and_no_rule_has_the_name_of_another():
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    names = [group["name"] for group in groups]
    rules = [rule.get("alert") or rule["record"] for group in groups for rule in group["rules"]]
    assert len(set(names)) == len(names) and len(set(rules)) == len(rules)


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_alert_leads_to_a_section_that_says_what_to_do(path):
    text = (ROOT / "docs" / "monitoring.md").read_text()
    sections = {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in text.splitlines() if line.startswith("#")}
    for alert in alerts(path):
        notes = alert["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url"}, alert["alert"]
        assert notes["runbook_url"] == f"{RUNBOOK}{alert['alert'].lower()}"
        assert notes["runbook_url"].removeprefix(RUNBOOK) in sections
        assert alert["labels"]["severity"] in ("warning", "critical")


@pytest.mark.skipif(not HELM.exists(), reason="no helm: `make tools` fetches it")
def test_the_chart_hands_the_rules_on_as_they_are():
    options = ["--set", "monitoring.rules.enabled=true"]
    done = subprocess.run([HELM, "template", "x", ROOT / "helm" / "assay", *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rendered = [one["spec"] for one in yaml.safe_load_all(done.stdout) if one and one["kind"] == "PrometheusRule"]
    assert rendered == [yaml.safe_load(path.read_text()) for path in RULES]
