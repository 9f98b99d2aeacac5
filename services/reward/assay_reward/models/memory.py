"""How much memory a model takes: by the headers of its files before it is read, by its tensors when it is there.

Tokenizers, templates and what a forward needs for a moment are not counted: they do not grow with the number of models as weights do.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch

from assay_data.fingerprints import BAG_OF_WORDS_FILE
from assay_kit.errors import InvalidArgument

_INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
_LENGTH_BYTES = 8
_MOST_HEADER_BYTES = 100_000_000
"""The limit that the format itself sets."""
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "I8": 8, "U8": 8, "BOOL": 8, "I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64}
"""Of types that stay as they are; all others are floating point, and become the type of the weights on the device."""


def folder_bytes(folder: Path, dtype: str) -> int:
    """Bytes that the weights in a folder will take, without reading them; 0 where it holds none.

    Args:
        folder: a checkpoint or a bag of words.
        dtype: type of the weights in memory, for example "float32".

    Raises:
        InvalidArgument: field `uri`; a file is not what its name says.
    """
    if (folder / BAG_OF_WORDS_FILE).is_file():
        return (folder / BAG_OF_WORDS_FILE).stat().st_size
    safetensors = _safetensors_of(folder)
    if safetensors:
        return sum(_file_bytes(file, torch.finfo(getattr(torch, dtype)).bits) for file in safetensors)
    return sum(file.stat().st_size for file in folder.glob("*.bin"))


def held_bytes(model: object) -> int:
    """Bytes of the tensors, arrays and texts that a model of this service has in memory, each counted once."""
    seen: set[int] = set()
    sizes: dict[tuple[str, int], int] = {}
    left = [model]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, torch.nn.Module):
            left += [*one.parameters(), *one.buffers()]
        elif isinstance(one, torch.Tensor):
            place, size = _tensor(one)
            sizes[place] = size
        elif isinstance(one, np.ndarray):
            sizes["array", id(one)] = one.nbytes
        elif isinstance(one, str | bytes):
            sizes["text", id(one)] = sys.getsizeof(one)
        elif isinstance(one, dict):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            left += one
        elif isinstance(one, partial):
            left += [one.func, *one.args, *one.keywords.values()]
        elif isinstance(one, MethodType):
            left.append(one.__self__)
        elif isinstance(one, FunctionType):
            left += [cell.cell_contents for cell in one.__closure__ or ()]
        elif type(one).__module__.startswith("assay_"):
            left += _attributes(one)
    return sum(sizes.values())


def _safetensors_of(folder: Path) -> list[Path]:
    """The files that are read: those of the index, the whole one, or all there are."""
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    index = folder / _INDEX
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument("uri", f"the weights in {folder} cannot be read: {_INDEX} is no index of them ({error!r})") from error
    return [folder / name for name in names]


def _file_bytes(file: Path, floating_bits: int) -> int:
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            if length > _MOST_HEADER_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header: dict[str, Any] = json.loads(stream.read(length))
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        bits = sum(math.prod(tensor["shape"]) * _BITS.get(tensor["dtype"], floating_bits) for tensor in tensors)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidArgument(
            "uri", f"the weights in {file.parent} cannot be read: {file.name} has no header of safetensors ({error})"
        ) from error
    return int(bits) // 8


def _tensor(tensor: torch.Tensor) -> tuple[tuple[str, int], int]:
    """Where its memory is, and how much; two views of one storage are one place."""
    if tensor.layout is not torch.strided:  # weights repacked for a processor have no storage that torch shows
        return ("tensor", id(tensor)), tensor.numel() * tensor.element_size()
    storage = tensor.untyped_storage()
    return ("storage", storage.data_ptr()), storage.nbytes()


def _attributes(one: object) -> list[object]:
    named = [getattr(one, field.name) for field in fields(one)] if is_dataclass(one) and not isinstance(one, type) else []
    return [*named, *vars(one).values()] if hasattr(one, "__dict__") else named
