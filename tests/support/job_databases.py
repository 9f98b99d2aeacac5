"""The databases that jobs are kept in: each test of jobs runs on both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.postgres import new_database, postgres_binaries, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    binaries = postgres_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL here: neither initdb on PATH nor /usr/lib/postgresql")
    with postgres_server(binaries) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return ""
    return new_database(request.getfixturevalue("postgres"))
