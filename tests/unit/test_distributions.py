"""Each distribution declares what it imports, so that an image with only its requirements has all it needs."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = sorted(path.parent for path in ROOT.glob("*/*/pyproject.toml"))
SHARED_NAMESPACES = {
    "assay": "assay-protos",
    "google.protobuf": "protobuf",
    "google.rpc": "googleapis-common-protos",
}
INSTALLED = packages_distributions()


def plain(name):
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=;! ]", name)[0]).lower()


def declared(folder):
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    optional = [name for names in project.get("optional-dependencies", {}).values() for name in names]
    return {plain(name) for name in [project["name"], *project["dependencies"], *optional]}


def imported(folder):
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield file, node.module


def providers(module):
    """Names of the distributions that a module comes from; one of them is enough."""
    top, *rest = module.split(".")
    shared = SHARED_NAMESPACES.get(f"{top}.{rest[0]}" if rest else top) or SHARED_NAMESPACES.get(top)
    if shared:
        return {shared}
    if top.startswith("assay_"):
        return {plain(top)}
    return {plain(name) for name in INSTALLED.get(top, [top])}


@pytest.mark.parametrize("folder", DISTRIBUTIONS, ids=lambda folder: folder.name)
def test_a_distribution_declares_what_it_imports(folder):
    known = declared(folder)
    missing = {
        f"{module} in {file.relative_to(ROOT)}"
        for file, module in imported(folder)
        if module.split(".")[0] not in sys.stdlib_module_names and not providers(module) & known
    }
    assert not missing, f"{folder.name}/pyproject.toml lacks {sorted(missing)}"


def test_all_distributions_are_looked_at():
    assert {"cleaning", "cli", "client", "data", "evaluation", "kit", "policy", "protos", "reward", "training"} <= {
        folder.name for folder in DISTRIBUTIONS
    }
