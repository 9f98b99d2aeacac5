"""Builds images with buildah, where no container engine runs: on a base of Debian's own packages instead of the one from the hub."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
BASE = "localhost/assay-base:bookworm"
CERTIFICATES = Path("/etc/ssl/certs")
# The Python of the official image, as Debian has it: its minor version is the same, and there is a `python`.
PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates"


class Builder:
    """buildah with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self._store = ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "overlay"]

    def _buildah(self, *arguments: str) -> str:
        done = subprocess.run(["buildah", *self._store, *arguments], capture_output=True, text=True, cwd=REPOSITORY)
        assert done.returncode == 0, f"buildah {' '.join(arguments)}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout.strip()

    def make_base(self) -> None:
        """Makes the base, where it is not there already."""
        if subprocess.run(["buildah", *self._store, "inspect", "--type", "image", BASE], capture_output=True).returncode == 0:
            return
        container = self._buildah("from", "scratch")
        try:
            folder = self._buildah("mount", container)
            without = [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "locale", "man")]
            command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", *without, "bookworm", folder]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-4000:]
            self._buildah("commit", "--quiet", container, BASE)
        finally:
            self._buildah("rm", container)

    def build(self, service: str, **arguments: str) -> str:
        """Builds a service's Dockerfile as it stands; the image's name. Certificates are the host's, for a proxy's sake."""
        given = {"BASE_IMAGE": BASE, "SSL_CERT_FILE": f"{CERTIFICATES}/ca-certificates.crt"} | arguments
        name = f"localhost/assay/{service}:test"
        self._buildah(
            *("bud", "--isolation", "chroot", "--network", "host", "--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"),
            *(part for key, value in given.items() for part in ("--build-arg", f"{key}={value}")),
            *("--file", f"services/{service}/Dockerfile", "--tag", name, "."),
        )
        self._buildah("rmi", "--prune")  # the image that had this name before
        return name

    def config(self, image: str) -> dict[str, Any]:
        """The image's OCI config: user, environment, entry point, labels."""
        config: dict[str, Any] = json.loads(self._buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
        return config

    @contextlib.contextmanager
    def mounted(self, image: str) -> Iterator[Path]:
        """The image's files."""
        container = self._buildah("from", image)
        try:
            yield Path(self._buildah("mount", container))
        finally:
            self._buildah("rm", container)
