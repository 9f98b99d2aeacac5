"""A real PostgreSQL server in a temporary folder, from whatever installation this machine has."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg


def postgres_binaries() -> Path | None:
    """The folder with initdb and pg_ctl, or None."""
    found = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "initdb").exists() and (folder / "pg_ctl").exists()), None)


@contextlib.contextmanager
def postgres_server(binaries: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """Runs a server while open; gives its URL without a database: postgresql://assay@HOST:PORT. The host's subnet may come in."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    account = _account()
    folder = Path(tempfile.mkdtemp(prefix="assay-postgres-"))
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)

    def call(*command: str) -> None:
        done = subprocess.run(
            command,
            user=None if account is None else account.pw_uid,
            group=None if account is None else account.pw_gid,
            extra_groups=None if account is None else [],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert done.returncode == 0, f"{command[0]}: {done.stderr}"

    data = str(folder / "data")
    try:
        call(str(binaries / "initdb"), "-D", data, "-U", "assay", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale", "C")
        with (folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all samenet trust\n")
        options = f"-p {port} -h {host} -k {folder} -c fsync=off"
        call(str(binaries / "pg_ctl"), "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://assay@{host}:{port}"
        finally:
            call(str(binaries / "pg_ctl"), "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def new_database(server: str) -> str:
    """Makes an empty database; gives its URL."""
    name = f"assay_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
    return f"{server}/{name}"


def _account() -> pwd.struct_passwd | None:
    """Who runs the server: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    return None
