"""What is generated is what the generator writes today, and a policy scanner finds nothing grave in any rendering."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import yaml
from support.chart import CHART, ROOT, VALUE_FILES, container_of, generator, rendered, tool, workload
from support.kubernetes_schemas import is_custom


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
    # What several files render alike is looked at once. A dashboard's description that holds the word token is taken for a secret.
    objects = {json.dumps(one): one for name in VALUE_FILES for one in rendered(name)}
    scanned = [one for one in objects.values() if not is_custom(one) and "dashboard" not in one["metadata"]["name"]]
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "all.yaml").write_text(yaml.safe_dump_all(scanned))
    command = [tool("trivy"), "config", "--skip-check-update", "--quiet", "--format", "json", "--severity", "HIGH,CRITICAL"]
    done = subprocess.run([*command, "--cache-dir", str(tmp_path / "cache"), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)["Results"]
    assert result["MisconfSummary"]["Successes"] > 20
    assert [(one["ID"], one["Message"]) for one in result.get("Misconfigurations", [])] == []


def test_the_scan_would_find_a_container_with_all_privileges(tmp_path: Path) -> None:
    one = workload(rendered("minimal"), "reward")
    container_of(one)["securityContext"] = {"privileged": True}
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(one))
    command = [tool("trivy"), "config", "--skip-check-update", "--quiet", "--format", "json", "--severity", "HIGH,CRITICAL"]
    done = subprocess.run([*command, "--cache-dir", str(tmp_path / "cache"), str(tmp_path / "one.yaml")], capture_output=True, text=True)
    assert "KSV017" in done.stdout or "KSV-0017" in done.stdout
