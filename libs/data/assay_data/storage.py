"""Files and folders by URI: local paths and ``file://``, and through fsspec ``s3://``, ``gs://``, ``memory://`` and the rest.

Whatever is written appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

import fsspec

from assay_data.errors import DataError


@dataclass(frozen=True)
class ArtifactInfo:
    """A large thing that travels by reference.

    Attributes:
        uri: where it is.
        sha256: of the bytes of a file, or of the sorted list of names and hashes of a folder; hexadecimal.
        size_bytes: size in bytes.
        rows: rows, where it has rows; else 0.
    """

    uri: str
    sha256: str
    size_bytes: int
    rows: int = 0


def is_local(uri: str) -> bool:
    """Whether the URI names a place on this machine's disk."""
    return "://" not in uri or uri.startswith("file://")


def path_of(uri: str | Path) -> Path:
    """Path of a local URI.

    Raises:
        DataError: where the URI is not local.
    """
    text = str(uri)
    if not is_local(text):
        raise DataError(text, 0, "", "not a local path; a path or a file:// URI is wanted here")
    if text.startswith("file://"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise DataError(text, 0, "", "a file URI names no host; write file:///folder/file with three slashes")
        return Path(unquote(parts.path))
    return Path(text).expanduser()


def join_uri(base: str, *parts: str) -> str:
    """``base`` with path parts appended, with one slash between each."""
    joined = "/".join(part.strip("/") for part in parts)
    return f"{base.rstrip('/')}/{joined}" if joined else base


def exists(uri: str) -> bool:
    """Whether a file or folder is there."""
    if is_local(uri):
        return path_of(uri).exists()
    filesystem, path = _remote(uri)
    return bool(filesystem.exists(path))


@contextmanager
def open_uri(uri: str, mode: str = "rb") -> Iterator[IO[Any]]:
    """Opens a file for reading (``rb`` or ``r``); text is UTF-8. For writing see `atomic_write`.

    Raises:
        DataError: where there is no such file.
        ValueError: for a writing mode.
    """
    if mode not in ("r", "rb"):
        raise ValueError(f"mode is {mode!r}; open_uri reads ('r', 'rb'), atomic_write writes")
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8"}
    with _missing_is_a_data_error(uri):
        if is_local(uri):
            opened: Any = path_of(uri).open(mode, **text)
        else:
            filesystem, path = _remote(uri)
            opened = filesystem.open(path, mode, **text)
    with opened as file:
        yield file


@contextmanager
def atomic_write(uri: str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Opens a file for writing (``wb`` or ``w``); it appears, whole, when the block ends well, and not at all when it raises."""
    if mode not in ("w", "wb"):
        raise ValueError(f"mode is {mode!r}; one of 'w', 'wb'")
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    target = path_of(uri) if is_local(uri) else None
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    partial = (target.parent if target else Path(tempfile.gettempdir())) / f".partial-{secrets.token_hex(8)}"
    try:
        with partial.open(mode.replace("w", "x"), **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target is not None:
            os.replace(partial, target)
        else:
            filesystem, path = _remote(uri)
            filesystem.makedirs(filesystem._parent(path), exist_ok=True)
            filesystem.put_file(str(partial), path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(uri: str, *, tag: str = "", last: Sequence[str] = ()) -> Iterator[Path]:
    """A local folder to write into; its files appear at ``uri`` when the block ends well, and none when it raises.

    Files of other names that are at ``uri`` already stay. Each file is moved whole.

    Args:
        uri: where the files shall be.
        tag: names the work, for example a job id: what a killed run of the same tag left half-done is removed first.
        last: names of the files to move last, so that who sees them may trust the others are there.
    """
    target = path_of(uri) if is_local(uri) else None
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
    if tag:
        parent = target.parent if target else Path(tempfile.gettempdir())
        staging = parent / f".partial-{hashlib.sha256(f'{uri} {tag}'.encode()).hexdigest()[:16]}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
    else:
        staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent if target else None))
    try:
        yield staging
        files = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
        files.sort(key=lambda path: last.index(path.as_posix()) + 1 if path.as_posix() in last else 0)
        for relative in files:
            if target is not None:
                destination = target / relative
                destination.parent.mkdir(parents=True, exist_ok=True)
                os.replace(staging / relative, destination)
            else:
                filesystem, path = _remote(join_uri(uri, relative.as_posix()))
                filesystem.makedirs(filesystem._parent(path), exist_ok=True)
                filesystem.put_file(str(staging / relative), path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def read_json(uri: str) -> Any:
    """The value of a JSON file.

    Raises:
        DataError: where there is no such file or it is not JSON.
    """
    with open_uri(uri, "rb") as file:
        content = file.read()
    try:
        return json.loads(content)
    except ValueError as error:
        raise DataError(uri, 0, "", f"not JSON: {error}") from error


def write_json(uri: str, value: Any) -> None:
    """Writes a value as indented JSON, atomically."""
    with atomic_write(uri, "w") as file:
        file.write(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_jsonl(uri: str) -> Iterator[Any]:
    """The values of a JSONL file in order; blank lines are passed over.

    Raises:
        DataError: names the first row that is not JSON.
    """
    with open_uri(uri, "rb") as file:
        for row, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise DataError(uri, row, "", f"not JSON: {error}; one JSON value a line is wanted") from error


def write_jsonl(uri: str, rows: Iterable[Any]) -> int:
    """Writes one JSON value a line, atomically; returns how many."""
    count = 0
    with atomic_write(uri, "wb") as file:
        for count, row in enumerate(rows, start=1):  # noqa: B007
            file.write(json_line(row))
    return count


def json_line(row: Any) -> bytes:
    """One line of JSONL, newline included; a lone surrogate stays an escape, so the bytes are always UTF-8."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def sha256_of(uri: str | Path) -> str:
    """SHA-256 of the bytes of a file, or of the sorted list of names and hashes of a folder; hexadecimal."""
    path = local_path(str(uri))
    if path.is_dir():
        digest = hashlib.sha256()
        for file in sorted(item for item in path.rglob("*") if item.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()} {_file_sha256(file)}\n".encode())
        return digest.hexdigest()
    return _file_sha256(path)


def artifact_of(uri: str, *, rows: int = 0) -> ArtifactInfo:
    """Hash and size of a file or folder that is there."""
    path = local_path(uri)
    size = sum(item.stat().st_size for item in path.rglob("*") if item.is_file()) if path.is_dir() else path.stat().st_size
    return ArtifactInfo(uri=uri, sha256=sha256_of(uri), size_bytes=size, rows=rows)


def local_path(uri: str, *, cache: Path | None = None) -> Path:
    """A file or folder on local disk: itself when local, fetched once per version when remote.

    Args:
        uri: a file or folder.
        cache: folder to keep what is fetched; default a folder of the machine's temporary directory.

    Raises:
        DataError: where there is nothing at the URI.
    """
    if is_local(uri):
        path = path_of(uri)
        if not path.exists():
            raise DataError(uri, 0, "", "there is no such file or folder")
        return path
    filesystem, remote = _remote(uri)
    with _missing_is_a_data_error(uri):
        names = sorted(filesystem.find(remote)) or [remote]
        versions = [f"{name} {filesystem.ukey(name)}" for name in names]
    key = hashlib.sha256("\n".join([uri, *versions]).encode()).hexdigest()[:32]
    home = cache or Path(tempfile.gettempdir()) / f"assay-artifacts-{os.getuid()}"
    target = home / key / (remote.rstrip("/").rsplit("/", 1)[-1] or "artifact")
    if not target.exists():
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=home))
        try:
            filesystem.get(remote, str(staging / target.name), recursive=bool(filesystem.isdir(remote)))
            try:
                staging.rename(home / key)
            except OSError:
                if not target.exists():
                    raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


def version_of(uri: str) -> str:
    """A text that changes when the file changes: its size and time, or the object store's own tag.

    Raises:
        DataError: where there is no such file.
    """
    with _missing_is_a_data_error(uri):
        if is_local(uri):
            stat = path_of(uri).stat()
            return f"{stat.st_mtime_ns} {stat.st_size} {stat.st_ino}"
        filesystem, path = _remote(uri)
        return str(filesystem.ukey(path))


def _remote(uri: str) -> tuple[Any, str]:
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise DataError(uri, 0, "", f"{error}; a path, file:// or the scheme of an installed fsspec filesystem is wanted") from error
    return filesystem, str(path)


@contextmanager
def _missing_is_a_data_error(uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(uri, 0, "", "there is no such file") from error
    except IsADirectoryError as error:
        raise DataError(uri, 0, "", "a folder, where a file is wanted") from error
    except PermissionError as error:
        raise DataError(uri, 0, "", "may not be read by this user") from error


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
