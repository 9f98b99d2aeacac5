"""Every example in the docstrings of the reward client and its adapters runs, against the real reward service."""

from __future__ import annotations

import doctest
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.reward_server import reward_in_thread
from support.tiny_models import write_tiny_reward_model

MODULES = [
    importlib.import_module(f"assay_client.{name}")
    for name in ("channels", "datasets", "errors", "reward", "reward_async", "reward_requests", "trl", "verl")
]
SHOWN_ELSEWHERE = {"close", "unload_model", "set_alias", "list_models", "get_shadow"}
"""Methods whose example is another's."""


def examples(module: ModuleType) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__) if test.examples]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("reward")
    model = write_tiny_reward_model(folder / "tiny")
    with reward_in_thread(folder / "service", {"tiny": model}) as target:
        yield target, model


@pytest.mark.parametrize("example", [one for module in MODULES for one in examples(module)], ids=lambda example: example.name)
def test_the_example_runs(example: doctest.DocTest, service: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_REWARD_TARGET", service[0])
    monkeypatch.setenv("ASSAY_EXAMPLE_REWARD_MODEL", str(service[1]))
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert result.attempted and not result.failed, "".join(said)


def test_each_use_has_an_example() -> None:
    shown = {example.name for module in MODULES for example in examples(module)}
    clients = [module for module in MODULES if module.__name__.rpartition(".")[2] in ("datasets", "reward", "reward_async", "trl", "verl")]
    wanted = set()
    for module in clients:
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", "") != module.__name__:
                continue
            wanted.add(f"{module.__name__}.{name}")
            if inspect.isclass(value) and name.endswith("Client"):
                methods = {key for key in vars(value) if not key.startswith("_")} - SHOWN_ELSEWHERE
                wanted |= {f"{module.__name__}.{name}.{method}" for method in methods}
    assert wanted and not wanted - shown
