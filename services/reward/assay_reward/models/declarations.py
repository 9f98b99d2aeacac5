"""Files that declare a reward model: JSON beside or instead of weights, every field checked."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from assay_kit.errors import InvalidArgument


class Declaration(BaseModel):
    """What a file declares; a field that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


D = TypeVar("D", bound=Declaration)
ApiKeyVariable: TypeAlias = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*_API_KEY$")]
"""Environment variable of the service that holds a key; not just any, or who may load models could send out others."""


def read_declaration(file: Path, kind: type[D], example: str) -> D:
    """What a file declares.

    Args:
        file: JSON.
        kind: what it must be.
        example: one that is right, for messages.

    Raises:
        InvalidArgument: field `uri`; it is not JSON or not of that kind: says which fields are wrong.
    """
    try:
        return kind.model_validate_json(file.read_bytes())
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(str(part) for part in one['loc']) or 'the file'}: {one['msg']}" for one in error.errors()[:5])
        raise InvalidArgument("uri", f"{file} is wrong ({wrong}); right would be, for example, {example}") from error


def read_api_key(variable: str | None, file: Path) -> str:
    """The key that a declaration names; empty where it names none.

    Args:
        variable: as declared.
        file: the declaration, for messages.

    Raises:
        InvalidArgument: field `uri`; the service's environment has no such variable.
    """
    key = os.environ.get(variable, "") if variable is not None else ""
    if variable is not None and not key:
        raise InvalidArgument("uri", f"{file} names {variable} in api_key_env, and the service's environment has no such variable")
    return key


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value, in hexadecimal, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
