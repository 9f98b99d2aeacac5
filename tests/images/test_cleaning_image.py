"""The cleaning service's image: built, looked at, and run as a cluster runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from images.builder import REPOSITORY, Builder

HERE = Path(__file__).parent
MEBIBYTE = 2**20


def pinned() -> set[tuple[str, str]]:
    """Name and version of each pin; a package has several where another Python takes another version."""
    found = re.findall(r"^([\w.-]+)(?:\[\w+\])?==(\S+)", (REPOSITORY / "requirements.txt").read_text(), flags=re.MULTILINE)
    return {(name.lower().replace("_", "-"), version) for name, version in found}


def installed(root: Path, folder: str) -> dict[str, str]:
    """Name and version of each distribution in a folder of the image."""
    names = [path.name.removesuffix(".dist-info") for path in (root / folder).glob("*.dist-info")]
    return {name.lower().replace("_", "-"): version for name, version in (one.rsplit("-", 1) for one in names)}


def packages(root: Path) -> dict[str, str]:
    return installed(root, "opt/assay/lib/python3.11/site-packages")


def test_the_image_says_who_it_is_and_whom_it_runs_as(builder: Builder, cleaning_image: str) -> None:
    config = builder.config(cleaning_image)
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["python", "-m", "assay_cleaning"]
    assert set(config["ExposedPorts"]) == {"50051/tcp", "50052/tcp", "9090/tcp"}
    assert set(config["Volumes"]) == {"/var/lib/assay", "/models"}
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert (labels["version"], labels["revision"], labels["licenses"]) == ("1.2.3", "0123abc", "Apache-2.0")
    assert not any("SSL_CERT_FILE" in pair or "INDEX" in pair for pair in config["Env"]), "what the build was given is still in the image"


def test_every_package_is_the_pinned_one(cleaning_root: Path) -> None:
    found = packages(cleaning_root)
    assert len(found) > 30
    assert found.items() - pinned() == set()
    assert set(installed(cleaning_root, "opt/own")) == {"assay-protos", "assay-data", "assay-kit", "assay-cleaning"}


def test_the_image_is_small_and_without_torch(cleaning_root: Path) -> None:
    assert not {"torch", "triton", "transformers", "pip", "uv"} & packages(cleaning_root).keys()
    size = sum(path.lstat().st_size for path in (cleaning_root / "opt").rglob("*"))
    assert size < 600 * MEBIBYTE, f"{size / MEBIBYTE:.0f} MiB beside the base"


def test_nothing_of_the_user_lies_where_it_could_be_changed(cleaning_root: Path) -> None:
    """The code is root's: a service that is broken into can't rewrite it, even where the root is writable."""
    theirs = subprocess.run(["find", cleaning_root, "-xdev", "-uid", "10001"], capture_output=True, text=True, check=True).stdout.split()
    assert {path.removeprefix(str(cleaning_root)) for path in theirs} == {"/var/lib/assay", "/models", "/artifacts"}


@pytest.mark.timeout(120)
def test_it_serves_on_a_read_only_root_and_leaves_when_told(builder: Builder, cleaning_image: str, cleaning_root: Path) -> None:
    command = ["unshare", "--mount", "--net", "setpriv", "--no-new-privs", sys.executable, str(HERE / "enter.py")]
    config = json.dumps(builder.config(cleaning_image))
    with subprocess.Popen([*command, str(cleaning_root), config], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as service:
        try:
            within = ["nsenter", f"--net=/proc/{service.pid}/ns/net", sys.executable, "-m", "images.ask_cleaning"]
            environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
            asked = _until_it_answers(service, within, environment)
            user = Path(f"/proc/{service.pid}/status").read_text()
            # as `kubectl exec` would
            enter = ["nsenter", f"--target={service.pid}", "--mount", "--net", "--root", "--setuid=10001", "--setgid=10001"]
            check = [*enter, "/opt/assay/bin/python", "-m", "assay_kit.self_check", "cleaning"]
            seen = subprocess.run(check, env={}, capture_output=True, text=True)
        finally:
            service.send_signal(signal.SIGTERM)
            said, _ = service.communicate(timeout=60)
    assert asked.returncode == 0, f"{asked.stderr}\n{said}"
    assert json.loads(asked.stdout) == {
        "health of ''": "SERVING",
        "health of 'assay.cleaning.v1.CleaningService'": "SERVING",
        "labelled": 20,
        "calls counted": True,
    }
    assert json.loads(seen.stdout) == [], seen.stderr
    assert re.search(r"^Uid:\t10001\t10001\t10001\t10001$", user, flags=re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", user, flags=re.MULTILINE) and "NoNewPrivs:\t1" in user
    assert service.returncode == 0, said
    assert "Read-only file system" not in said and "Permission denied" not in said


def _until_it_answers(service: subprocess.Popen[str], command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The first answer, or the last failure; the network is the service's own only once `unshare` has made it."""
    while True:
        asked = subprocess.run(command, env=environment, capture_output=True, text=True)
        if asked.returncode == 0 or service.poll() is not None:
            return asked
