"""The rows of a file as they stand in it, so that the file can be made again from them."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from assay_data.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
"""File names that are read from a folder."""

_PARQUET_MAGIC = b"PAR1"
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a file.

    Attributes:
        number: 1-based number: the line of a JSONL file, the row of a Parquet file.
        value: the decoded row.
        raw: of JSONL, the text with its line end, and with the blank lines around it; of Parquet, the row as an Arrow record
            batch in base64. The raws of all rows make the file again: see `joined`.
    """

    number: int
    value: Any
    raw: str


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its first bytes or, where it has too few, by its name."""
    with path.open("rb") as file:
        head = file.read(4)
    return head == _PARQUET_MAGIC or path.suffix == ".parquet"


def read_rows(path: Path, uri: str) -> Iterator[Row]:
    """The rows of a JSONL file (gzip or not, told by its first bytes) or of a Parquet file.

    Args:
        path: the file.
        uri: its name in errors.

    Raises:
        DataError: where the file is not what it says, is cut short or has no rows, or where a row cannot be decoded.
    """
    if path.stat().st_size == 0:
        raise DataError(uri, 0, "", "the file is empty; one JSON object a line is wanted")
    return _parquet_rows(path, uri) if is_parquet(path) else _json_rows(path, uri)


def _json_rows(path: Path, uri: str) -> Iterator[Row]:
    held: Row | None = None
    blank = ""
    for number, line in _lines(path, uri):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            wanted = "JSONL (or gzip of it) or Parquet is wanted"
            raise DataError(uri, number, "", f"not UTF-8 at byte {error.start} of the row; {wanted}") from error
        if not text.strip("\ufeff \t\r\n"):
            blank += text
            continue
        if held:
            yield held
        try:
            value = json.loads(text.lstrip("\ufeff"))
        except ValueError as error:
            hint = "this is one JSON array; write one object a line" if held is None and text.lstrip("\ufeff \t").startswith("[") else ""
            raise DataError(uri, number, "", f"not JSON: {error}; {hint or 'one JSON object a line is wanted'}") from error
        if isinstance(value, list):
            raise DataError(uri, number, "", "a JSON array; one object a line is wanted (JSONL)")
        held, blank = Row(number=number, value=value, raw=blank + text), ""
    if held is None:
        raise DataError(uri, 0, "", "there are only blank lines; one JSON object a line is wanted")
    yield replace(held, raw=held.raw + blank)


def _lines(path: Path, uri: str) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as raw:
        zipped = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        if not zipped and path.suffix == ".gz":
            raise DataError(uri, 0, "", "the name says gzip, the content is not; gzip it or take .gz off the name")
        number = 0
        stream: Any = gzip.GzipFile(fileobj=raw) if zipped else raw
        try:
            for number, line in enumerate(stream, start=1):
                yield number, line
        except EOFError as error:
            raise DataError(uri, number + 1, "", "the gzip stream is cut short here; fetch the file again") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(uri, number + 1, "", f"the gzip stream is damaged here ({error}); fetch the file again") from error


def _parquet_rows(path: Path, uri: str) -> Iterator[Row]:
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                plain = _without_dictionaries(pyarrow.Table.from_batches([batch]))
                for index, value in enumerate(plain.to_pylist()):
                    number += 1
                    (one,) = plain.slice(index, 1).combine_chunks().to_batches()
                    yield Row(number=number, value=value, raw=base64.b64encode(one.serialize()).decode())
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(uri, number + 1 if number else 0, "", f"not a whole Parquet file: {error}") from error
    if not number:
        raise DataError(uri, 0, "", "the Parquet file has no rows")


def parquet_schema(path: Path) -> str:
    """The Arrow schema of a Parquet file in base64, as `joined` wants it; empty for other files."""
    if not is_parquet(path):
        return ""
    return base64.b64encode(pyarrow.parquet.read_schema(path).serialize()).decode()


def joined(raws: Iterator[str], schema: str = "") -> bytes | pyarrow.Table:
    """The file made again from the raws of its rows: its uncompressed bytes, or for Parquet an equal table."""
    if not schema:
        return "".join(raws).encode()
    wanted = pyarrow.ipc.read_schema(pyarrow.py_buffer(base64.b64decode(schema)))
    plain = pyarrow.schema([_plain_field(field) for field in wanted], metadata=wanted.metadata)
    batches = [pyarrow.ipc.read_record_batch(pyarrow.py_buffer(base64.b64decode(raw)), plain) for raw in raws]
    return pyarrow.Table.from_batches(batches, schema=plain).combine_chunks().cast(wanted)


def _without_dictionaries(table: Any) -> Any:
    return table.cast(pyarrow.schema([_plain_field(field) for field in table.schema], metadata=table.schema.metadata))


def _plain_field(field: Any) -> Any:
    return field.with_type(field.type.value_type) if pyarrow.types.is_dictionary(field.type) else field
