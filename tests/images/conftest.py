"""Images that the tests of this folder share; `make test-images` runs them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from images.builder import REPOSITORY, Builder


@pytest.fixture(scope="session")
def builder() -> Builder:
    """buildah with the base image made; what is kept in .tools/images makes the next run quick."""
    for program in ("buildah", "mmdebstrap"):
        assert shutil.which(program), f"{program} is needed: apt-get install buildah mmdebstrap"
    builder = Builder(REPOSITORY / ".tools" / "images")
    builder.make_base()
    return builder


@pytest.fixture(scope="session")
def cleaning_image(builder: Builder) -> str:
    """The cleaning service's image, built from its Dockerfile."""
    return builder.build("cleaning", VERSION="1.2.3", REVISION="0123abc")


@pytest.fixture(scope="session")
def cleaning_root(builder: Builder, cleaning_image: str) -> Iterator[Path]:
    """The files of the cleaning image."""
    with builder.mounted(cleaning_image) as root:
        yield root
