"""The commands of the docs: each helm line renders, each file is there, each assay command exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.chart import ROOT, helm

PAGES = ("docs/operations.md", "docs/sizing.md", "k8s/quickstart/README.md", "helm/assay/README.md")
OTHERS = ("rollback", "history", "uninstall", "repo")
CUSTOM = [f"--api-versions={one}" for one in ("monitoring.coreos.com/v1", "cert-manager.io/v1", "kafka.strimzi.io/v1", "keda.sh/v1alpha1")]


def page(name: str) -> str:
    return (ROOT / name).read_text()


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page(name), flags=re.MULTILINE | re.DOTALL)


def lines(program: str) -> list[object]:
    """Each command line of a program in the unnamed blocks of the pages."""
    found = [(name, line.strip()) for name in PAGES for block in blocks(name, "") for line in block.splitlines()]
    return [pytest.param(name, line, id=f"{name}: {line[:70]}") for name, line in found if line.startswith(f"{program} ")]


def values_written_in(name: str, folder: Path) -> None:
    """Writes each YAML block that the text before names as `….yaml` into a file of that name."""
    for text, block in re.findall(r"`([\w-]+\.yaml)`:\n\n```yaml\n(.*?)^```$", page(name), flags=re.MULTILINE | re.DOTALL):
        (folder / text).write_text(block)


@pytest.mark.parametrize(("name", "line"), lines("helm"))
def test_a_helm_line_is_one_that_works(name: str, line: str, tmp_path: Path) -> None:
    values_written_in(name, tmp_path)
    _, verb, *rest = shlex.split(line)
    if verb in OTHERS:
        return
    assert verb in ("install", "upgrade", "template")
    kept: list[str] = []
    words = iter(rest)
    for word in words:
        if word in ("--values", "--set", "--namespace", "--timeout"):
            value = next(words)
            if word == "--values":
                file = next((folder / value for folder in (tmp_path, ROOT) if (folder / value).exists()), None)
                assert file is not None, f"{value} is neither in the repository nor on the page"
                value = str(file)
            if word != "--timeout":
                kept += [word, value]
        elif word not in ("--wait", "--create-namespace", "--install"):
            kept.append(word)
    if not any(word == "helm/assay" for word in kept):
        files = [Path(value) for option, value in zip(kept, kept[1:], strict=False) if option == "--values"]
        assert all(isinstance(yaml.safe_load(file.read_text()), dict) for file in files)
        return
    kept = [str(ROOT / word) if word == "helm/assay" else word for word in kept]
    done = helm("helm4", "template", *kept, *CUSTOM)
    assert done.returncode == 0, done.stderr
    assert "kind: Deployment" in done.stdout


@pytest.mark.parametrize(("name", "line"), [*lines("kubectl"), *lines("docker"), *lines("kind")])
def test_the_files_that_a_line_names_are_there(name: str, line: str) -> None:
    named = [word for word in shlex.split(line) if re.match(r"(k8s|services|helm)/", word)]
    assert [word for word in named if not (ROOT / word).exists()] == []


def test_every_assay_command_of_the_docs_exists() -> None:
    text = "".join(page(name) for name in PAGES)
    commands = set(re.findall(r"`(assay(?: [a-z][a-z-]+){1,2})", text)) | set(
        re.findall(r"^(assay(?: [a-z][a-z-]+){1,2})", text, re.MULTILINE)
    )
    assert commands
    program = Path(sys.executable).with_name("assay")
    for command in sorted(commands):
        words = command.split()[1:3]
        help_text = ""
        for depth in (len(words), 1):
            done = subprocess.run([program, *words[:depth], "--help"], capture_output=True, text=True)
            help_text = done.stdout if done.returncode == 0 else help_text
        assert help_text, command


def test_the_links_of_the_pages_lead_somewhere() -> None:
    broken = []
    for name in (*PAGES, "k8s/README.md"):
        for target in re.findall(r"\]\(([^)#][^)]*)\)", page(name)):
            if "://" not in target and not ((ROOT / name).parent / target.partition("#")[0]).exists():
                broken.append(f"{name}: {target}")
    assert broken == []


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("docs/")])
def test_the_links_within_a_page_lead_to_a_heading(name: str) -> None:
    headings = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", page(name), re.MULTILINE)}
    assert {target for target in re.findall(r"\]\(#([^)]*)\)", page(name))} <= headings
