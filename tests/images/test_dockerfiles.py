"""All five Dockerfiles, without building them: one text, of what is really there, and as the linter wants it."""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from images.builder import REPOSITORY

from assay_kit.settings import SERVICES

WITH_TORCH = {"reward", "policy", "training"}
LIBRARIES = ("protos", "data", "client", "kit")


def dockerfile(service: str) -> str:
    return (REPOSITORY / "services" / service / "Dockerfile").read_text()


def requirements(folder: Path) -> list[str]:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return [str(one) for one in project["dependencies"]]


def libraries(service: str) -> list[str]:
    """The project's own libraries that a service stands on, through others too."""
    seen: set[str] = set()
    waiting = [REPOSITORY / "services" / service]
    while waiting:
        own = {one.removeprefix("assay-") for one in requirements(waiting.pop()) if one.startswith("assay-")}
        waiting += [REPOSITORY / "libs" / one for one in own - seen]
        seen |= own
    return [one for one in LIBRARIES if one in seen]


def common(service: str) -> list[str]:
    """The lines that must be the same in all five: without the service's name, its libraries, torch's part and the reward's door."""
    text = dockerfile(service)
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^ARG TORCH_INDEX\nRUN .*\n +.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\nFROM service AS cuda\nENV NVIDIA_DRIVER_CAPABILITIES=compute,utility\n\nFROM service\n$", "", text)
    text = re.sub(r"^COPY (libs|services)/.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r" \./(libs|services)/\w+", "", text)
    text = text.replace(" \\\n    ASSAY_REWARD_HTTP_HOST=0.0.0.0 \\\n    ASSAY_REWARD_HTTP_PORT=8080", "").replace(
        " 9090 8080\n", " 9090\n"
    )
    text = re.sub(r'(image\.description=)".*"', r"\1", text)
    return text.replace(f"assay-{service}", "assay-NAME").replace(f"assay_{service}", "assay_NAME").splitlines()


@pytest.mark.parametrize("service", SERVICES)
def test_the_dockerfiles_are_one_text(service: str) -> None:
    different = list(difflib.unified_diff(common("cleaning"), common(service), "cleaning", service, lineterm="", n=0))
    assert different == [], "\n".join(different)


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_copied_is_what_the_service_stands_on(service: str) -> None:
    own = [*(f"libs/{one}" for one in libraries(service)), f"services/{service}"]
    copied = [tuple(words) for words in re.findall(r"^COPY (\S+) (\S+)$", dockerfile(service), flags=re.MULTILINE)]
    assert copied == [("requirements.txt", "./"), *((f"{one}/pyproject.toml", f"{one}/") for one in own), *((one, one) for one in own)]
    assert " ".join(f"./{one}" for one in own) in dockerfile(service)
    assert all((REPOSITORY / source).exists() for source, _ in copied)


@pytest.mark.parametrize("service", SERVICES)
def test_the_services_with_torch_and_only_those_have_a_variant_for_gpus(service: str) -> None:
    assert ("FROM service AS cuda" in dockerfile(service)) == (service in WITH_TORCH)
    assert ("ARG TORCH_INDEX" in dockerfile(service)) == (service in WITH_TORCH)


@pytest.mark.parametrize("service", SERVICES)
def test_the_base_is_pinned_by_digest(service: str) -> None:
    base = re.search(r"^ARG BASE_IMAGE=(\S+)$", dockerfile(service), flags=re.MULTILINE)
    assert base and re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", base[1])
    assert ":latest" not in dockerfile(service)


@pytest.mark.parametrize("service", SERVICES)
def test_the_pins_are_enough_for_the_service_and_bring_torch_only_where_it_is_wanted(service: str, tmp_path: Path) -> None:
    """What the build would install, resolved but not fetched."""
    folders = [*(REPOSITORY / "libs" / one for one in libraries(service)), REPOSITORY / "services" / service]
    direct = tmp_path / "direct.txt"
    direct.write_text("\n".join(one for folder in folders for one in requirements(folder) if not one.startswith("assay-")))
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "pip", "install", "--dry-run", "--target", str(tmp_path / "empty"), "--constraint", "requirements.txt"]
    done = subprocess.run([*command, "--requirement", str(direct)], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    chosen = re.findall(r"^ \+ (\S+)==(\S+)$", done.stderr, flags=re.MULTILINE)
    assert len(chosen) > 30
    assert any(name == "torch" for name, _ in chosen) == (service in WITH_TORCH)
    pins = (REPOSITORY / "requirements.txt").read_text()
    assert [f"{name}=={version}" for name, version in chosen if f"{name}=={version}" not in pins] == []


def test_the_linter_has_nothing_to_say() -> None:
    hadolint = REPOSITORY / ".tools" / "bin" / "hadolint"
    if not hadolint.exists():
        subprocess.run([REPOSITORY / "scripts" / "chart_tools.sh"], check=True)
    files = [str(REPOSITORY / "services" / service / "Dockerfile") for service in SERVICES]
    done = subprocess.run([str(hadolint), "--no-color", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
