"""compose.yaml: nothing runs it here, but every line of it is held against what it speaks of."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support.chart import CHART, ROOT

from assay_cleaning.__main__ import app_of
from assay_cleaning.settings import CleaningSettings
from assay_kit.server import running
from assay_kit.settings import SERVICES, ServiceSettings

COMPOSE_GO = "github.com/compose-spec/compose-go/v2"
COMPONENTS: dict[str, Any] = yaml.safe_load((CHART / "files" / "components.yaml").read_text())


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return loaded


def of(service: str) -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"][service]
    return found


def settings_of(service: str) -> type[ServiceSettings]:
    found: type[ServiceSettings] = getattr(importlib.import_module(f"assay_{service}.settings"), f"{service.capitalize()}Settings")
    return found


def dockerfile(service: str) -> str:
    return (ROOT / of(service)["build"]["dockerfile"]).read_text()


def expanded(value: str) -> str:
    """What docker makes of ${NAME:-default} where NAME is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def test_it_is_what_the_compose_specification_allows(tmp_path: Path) -> None:
    """By the schema of the library that docker compose reads its files with."""
    if shutil.which("go") is None:
        pytest.skip("the schema comes as a Go module, and there is no go")
    command = ["go", "mod", "download", "-json", f"{COMPOSE_GO}@v2.4.7"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    schema = json.loads((Path(json.loads(done.stdout)["Dir"]) / "schema" / "compose-spec.json").read_text())
    errors = jsonschema.validators.validator_for(schema)(schema).iter_errors(compose())
    assert [f"{'.'.join(map(str, error.path))}: {error.message[:200]}" for error in errors] == []


@pytest.mark.parametrize("service", SERVICES)
def test_every_variable_is_a_setting_of_the_service_and_its_value_is_taken(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {name: expanded(str(value)) for name, value in of(service)["environment"].items()}
    known = {f"ASSAY_{name}".upper() for name in settings_of(service).model_fields}
    assert environment.keys() <= known
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = settings_of(service)()
    assert settings.kafka_create_topics and settings.kafka_bootstrap == "kafka:9092"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_told_of_those_it_calls_and_of_no_other(service: str) -> None:
    targets = {name: value for name, value in of(service)["environment"].items() if name.endswith("_TARGET")}
    assert targets == {f"ASSAY_{called.upper()}_TARGET": f"{called}:50051" for called in COMPONENTS[service]["calls"]}


@pytest.mark.parametrize("service", SERVICES)
def test_ports_and_volumes_are_those_of_the_image(service: str) -> None:
    inside = {port.rpartition(":")[2] for port in of(service)["ports"]}
    assert inside <= set(re.findall(r"\d+", re.search(r"^EXPOSE (.*)$", dockerfile(service), flags=re.MULTILINE)[1]))  # type: ignore[index]
    assert all(port.startswith("127.0.0.1:") for port in of(service)["ports"])
    mounts = {volume.split(":")[1] for volume in of(service)["volumes"]}
    assert {"/var/lib/assay", "/artifacts"} <= mounts <= {"/var/lib/assay", "/artifacts", "/models"}
    assert ("/models" in mounts) == COMPONENTS[service]["models"]
    assert set(of(service)["build"]["args"]) <= set(re.findall(r"^ARG (\w+)", dockerfile(service), flags=re.MULTILINE))
    assert of(service)["read_only"] and of(service)["cap_drop"] == ["ALL"]


def test_every_volume_and_config_is_declared_and_used() -> None:
    services = compose()["services"].values()
    named = {volume.split(":")[0] for one in services for volume in one["volumes"] if not volume.startswith("./")}
    assert named == set(compose()["volumes"])
    assert {config["source"] for one in services for config in one.get("configs", [])} == set(compose()["configs"])
    folders = {volume.split(":")[0] for one in services for volume in one["volumes"] if volume.startswith("./")}
    assert folders and all((ROOT / folder).is_dir() for folder in folders)


def test_prometheus_reads_the_metrics_of_all_five() -> None:
    config = yaml.safe_load(compose()["configs"]["prometheus"]["content"])
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets == {f"assay-{service}": [f"{service}:9090"] for service in SERVICES}


def test_images_of_others_have_versions() -> None:
    others = {one["image"] for name, one in compose()["services"].items() if name not in SERVICES}
    assert all(re.search(r":v?\d+\.\d+", image) for image in others) and "apache/kafka:4.3.1" in others


@pytest.mark.parametrize("service", SERVICES)
def test_the_health_check_asks_for_the_service_by_its_name(service: str) -> None:
    *_, name = of(service)["healthcheck"]["test"]
    assert name in COMPONENTS[service]["services"]


async def test_the_health_check_tells_ready_from_not_there(tmp_path: Path) -> None:
    how, python, option, program, name = of("cleaning")["healthcheck"]["test"]
    assert (how, python, option) == ("CMD", "python", "-c")
    async with running(app_of(CleaningSettings(data_dir=tmp_path))) as target:
        asked = program.replace("127.0.0.1:50052", target)
        assert asked != program
        codes = []
        for service in (name, "assay.nothing.v1.NothingService"):
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", asked, service, stderr=asyncio.subprocess.DEVNULL)
            codes.append(await process.wait())
    assert codes[0] == 0 and codes[1] != 0
