"""From the URI of a model to a folder on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError

from assay_data.errors import DataError
from assay_data.storage import is_local, local_path, path_of
from assay_kit.errors import InvalidArgument, NotFound

_HUB_ID = re.compile(r"(?:hf://)?([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([\w./-]+))?")
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def settled_uri(uri: str) -> str:
    """The URI as it is remembered: a relative path made absolute, all else as it is."""
    if uri and "://" not in uri and path_of(uri).exists():
        return str(path_of(uri).resolve())
    return uri


def folder_of(uri: str, cache: Path) -> Path:
    """The model's folder on local disk, fetched where it is elsewhere.

    Args:
        uri: a folder, file://, another fsspec scheme, or a hub id (owner/name, owner/name@revision, with or without hf://).
        cache: folder to keep what is fetched from other stores than the hub, which has a cache of its own.

    Raises:
        InvalidArgument: field `uri`; empty, or a file.
        NotFound: field `uri`; nothing is there, or the store does not answer.
    """
    if not uri:
        raise InvalidArgument("uri", "is empty; a folder, file://, s3://, gs:// or a hub id such as owner/name is wanted")
    hub = _HUB_ID.fullmatch(uri)
    if hub and not (is_local(uri) and path_of(uri).exists()):
        return _from_hub(uri, hub[1], hub[2])
    try:
        folder = local_path(uri, cache=cache)
    except DataError as error:
        raise _not_found(f"{error}; a folder, file://, s3://, gs:// or a hub id such as owner/name is wanted") from error
    except OSError as error:
        raise _not_found(f"{uri} cannot be read: {error}") from error
    if not folder.is_dir():
        raise InvalidArgument("uri", f"{uri} is a file; the folder of the model is wanted")
    return folder


def _from_hub(uri: str, repository: str, revision: str | None) -> Path:
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=_HUB_FILES))
    except HFValidationError as error:
        raise InvalidArgument("uri", f"{uri} is no hub id: {error}") from error
    except Exception as error:  # the hub's HTTP library is its own choice, and so are its errors
        reason = " ".join(str(error).split())[:200]
        raise _not_found(f"{uri} is no folder here, and the hub does not give it ({type(error).__name__}: {reason})") from error


def _not_found(description: str) -> NotFound:
    error = NotFound(f"uri: {description}")
    error.violations = [("uri", description)]
    return error
