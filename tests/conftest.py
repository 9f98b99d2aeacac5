"""Fixtures that several suites need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay_cli.broker import LocalBroker


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets, which are not part of the project."""
    folder = Path(os.environ.get("ASSAY_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no folder of real data sets; ASSAY_SHARED_DATA names one")
    return folder


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a real Kafka: ASSAY_KAFKA_BOOTSTRAP where it is set, else a broker for this session."""
    given = os.environ.get("ASSAY_KAFKA_BOOTSTRAP", "")
    if given:
        yield given
        return
    with LocalBroker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker.bootstrap
