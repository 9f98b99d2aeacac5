"""The file that remembers which models are loaded, so that a restart loads the same again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from assay_data.errors import DataError
from assay_data.storage import read_json, write_json

_FORMAT = "assay.reward.models/1"


@dataclass(frozen=True, kw_only=True)
class RememberedModel:
    """What it takes to load a model again and to know that it is the same."""

    name: str
    revision: str
    uri: str
    fingerprint: str
    evicted: bool = False
    """Whether it had left memory to make room; it is listed after a start, and not loaded."""


def read_remembered(path: Path) -> tuple[list[RememberedModel], dict[str, str]]:
    """Models in the order they were loaded, and aliases; nothing where there is no file yet.

    Raises:
        DataError: the file is not what `write_remembered` writes.
    """
    if not path.exists():
        return [], {}
    content: Any = read_json(str(path))
    try:
        if content["format"] != _FORMAT:
            raise DataError(str(path), 0, "format", f"{content['format']!r}, where {_FORMAT!r} is wanted")
        return [RememberedModel(**item) for item in content["models"]], {str(key): str(value) for key, value in content["aliases"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(str(path), 0, "", f"not a list of models ({error!r}); move the file away to start with none") from error


def write_remembered(path: Path, models: Iterable[RememberedModel], aliases: Mapping[str, str]) -> None:
    """Writes the file, whole or not at all; it is on the disk when this returns."""
    write_json(str(path), {"format": _FORMAT, "models": [asdict(model) for model in models], "aliases": dict(aliases)})
