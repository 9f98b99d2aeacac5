"""Models that a model is made of: found by URI, beside the file that names them or anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from assay_data.errors import DataError
from assay_data.fingerprints import Fingerprint, fingerprint_folder
from assay_kit.errors import InvalidArgument, NotFound
from assay_reward.models.base import LoadOptions
from assay_reward.sources import folder_of

MAX_NESTING = 4
"""Most models within models."""


def member_folder(folder: Path, uri: str, field: str, options: LoadOptions) -> Path:
    """Folder of a member; a relative path that is there is relative to the folder of the file that names it.

    Args:
        folder: the model's own.
        uri: as in its file.
        field: where it stands in the file, for messages.
        options: those of the model.

    Raises:
        InvalidArgument: field `uri`; it is no folder, or the model holds itself.
        NotFound: field `uri`; it is not there.
    """
    beside = folder / uri
    relative = uri and "://" not in uri and not Path(uri).is_absolute()
    wanted = str(beside.resolve()) if relative and (beside.exists() or uri.startswith(".")) else uri
    with errors_of(field):
        found = folder_of(wanted, options.cache)
    inside = (*options.inside, folder.resolve())
    if found.resolve() in inside:
        raise InvalidArgument("uri", f"{field}: {found} holds itself; a model cannot be a member of its own")
    return found


def inside(folder: Path, options: LoadOptions) -> LoadOptions:
    """Options for the members of a model.

    Raises:
        InvalidArgument: field `uri`; models are nested too deep.
    """
    nested = (*options.inside, folder.resolve())
    if len(nested) > MAX_NESTING:
        raise InvalidArgument("uri", f"{folder} is nested {len(nested)} deep; at most {MAX_NESTING} models within models are read")
    return replace(options, inside=nested)


@contextmanager
def errors_of(field: str) -> Iterator[None]:
    """What is wrong with a member is said of its field in the file; the code stays."""
    try:
        yield
    except (InvalidArgument, NotFound) as error:
        said = f"{field}: {error.violations[0][1]}" if error.violations else f"{field}: {error.message}"
        if isinstance(error, InvalidArgument):
            raise InvalidArgument("uri", said) from error
        named = NotFound(f"uri: {said}")
        named.violations = [("uri", said)]
        raise named from error


def files_fingerprint(folder: Path, field: str) -> Fingerprint:
    """Fingerprint of a member that is a checkpoint.

    Raises:
        InvalidArgument: field `uri`; there are no weights.
    """
    try:
        return fingerprint_folder(folder)
    except DataError as error:
        raise InvalidArgument("uri", f"{field}: {error}") from error
