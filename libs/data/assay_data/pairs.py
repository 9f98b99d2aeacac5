"""Preference pairs in files: reading every format, writing the project's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay_data.conversations import Message, PreferencePair
from assay_data.errors import DataError
from assay_data.formats import RowError, pair_of
from assay_data.hub import hub_files, is_hub_id
from assay_data.rows import SUFFIXES, parquet_schema, read_rows
from assay_data.storage import ArtifactInfo, atomic_write, json_line, local_path

_SPLITS = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation"}


@dataclass(frozen=True, kw_only=True)
class PairFile:
    """A file of pairs.

    Attributes:
        path: where it is on disk.
        name: its name within the input: the file's name, or the path within the folder or dataset.
        uri: how errors call it.
        source: source of its pairs where they name none.
        split: split of its pairs where they name none.
    """

    path: Path
    name: str
    uri: str
    source: str
    split: str

    def schema(self) -> str:
        """Arrow schema in base64 when the file is Parquet; else empty."""
        return parquet_schema(self.path)


@dataclass(frozen=True, kw_only=True)
class PairRow:
    """A pair and where it stood.

    Attributes:
        pair: the pair.
        file: name of the file within the input.
        number: 1-based line or row in the file.
        raw: the row as it stood, see `assay_data.rows.Row.raw`.
    """

    pair: PreferencePair
    file: str
    number: int
    raw: str


def pair_files(uri: str) -> list[PairFile]:
    """The files behind a URI, sorted by name: one file, those of a folder and its folders, or those of a hub dataset.

    Raises:
        DataError: where nothing readable is there; `HubUnavailable` where it may be a hub id and no hub answers.
    """
    if is_hub_id(uri):
        return [_pair_file(path, name, f"{uri} ({name})", f"{_hub_name(uri)}/{name}") for path, name in hub_files(uri)]
    path = local_path(uri)
    if path.is_file():
        return [_pair_file(path, path.name, uri, f"{path.parent.name}/{path.name}")]
    names = sorted(item.relative_to(path).as_posix() for item in path.rglob("*") if item.is_file() and item.name.endswith(SUFFIXES))
    names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
    if not names:
        raise DataError(uri, 0, "", f"the folder holds no {', '.join(SUFFIXES)} file")
    return [_pair_file(path / name, name, f"{uri.rstrip('/')}/{name}", f"{path.name}/{name}") for name in names]


def read_pair_rows(uri: str, limit: int = 0) -> Iterator[PairRow]:
    """The pairs behind a URI with the rows they came from, in the files' order.

    Args:
        uri: file (HH-RLHF or plain JSONL, gzip or not; Parquet), folder of such files, or hub id.
        limit: at most this many, from the first; 0 means all.

    Raises:
        DataError: names file, row and field of the first fault, and what would be right.
    """
    if limit < 0:
        raise ValueError(f"limit is {limit}; 0 (all) or more is wanted")
    count = 0
    for file in pair_files(uri):
        for row in read_rows(file.path, file.uri):
            try:
                pair = pair_of(row.value, source=file.source, split=file.split)
            except RowError as error:
                raise DataError(file.uri, row.number, error.field, error.message) from error
            yield PairRow(pair=pair, file=file.name, number=row.number, raw=row.raw)
            count += 1
            if count == limit:
                return


def read_pairs(uri: str, limit: int = 0) -> Iterator[PreferencePair]:
    """The pairs behind a URI; see `read_pair_rows`."""
    return (row.pair for row in read_pair_rows(uri, limit))


def write_pairs(uri: str, pairs: Iterable[PreferencePair]) -> ArtifactInfo:
    """Writes pairs as plain JSONL in the project's own format, atomically."""
    digest = hashlib.sha256()
    rows = size = 0
    with atomic_write(uri) as file:
        for pair in pairs:
            line = json_line(pair_to_dict(pair))
            file.write(line)
            digest.update(line)
            size += len(line)
            rows += 1
    return ArtifactInfo(uri=uri, sha256=digest.hexdigest(), size_bytes=size, rows=rows)


def pair_to_dict(pair: PreferencePair) -> dict[str, Any]:
    """A pair in the project's own format; `assay_data.formats.pair_of` reads it back."""
    row: dict[str, Any] = {
        "id": pair.id,
        "prompt": _turns(pair.prompt),
        "chosen": pair.chosen,
        "rejected": pair.rejected,
    }
    if pair.rejected_prompt:
        row["rejected_prompt"] = _turns(pair.rejected_prompt)
    return {**row, "source": pair.source, "split": pair.split, "metadata": dict(pair.metadata)}


def _turns(messages: Iterable[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _pair_file(path: Path, name: str, uri: str, full_name: str) -> PairFile:
    source, split = _source_and_split(full_name)
    return PairFile(path=path, name=name, uri=uri, source=source, split=split)


def _source_and_split(name: str) -> tuple[str, str]:
    """``hh-rlhf/harmless-base-test.jsonl.gz`` and ``hh-rlhf/harmless-base/test.jsonl.gz`` -> ``hh-rlhf/harmless-base``, ``test``."""
    stem = name
    for suffix in (".gz", ".jsonl", ".json", ".parquet"):
        stem = stem.removesuffix(suffix)
    for separator in "/-_.":
        head, found, tail = stem.rpartition(separator)
        if found and tail in _SPLITS:
            return head.strip("/"), _SPLITS[tail]
    return stem.strip("/"), ""


def _hub_name(uri: str) -> str:
    return uri.removeprefix("hf://").removeprefix("datasets/").split("/")[1]
