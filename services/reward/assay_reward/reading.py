"""From a URI to a model in memory that has scored once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from assay_data.conversations import Message
from assay_data.fingerprints import Fingerprint
from assay_kit.errors import AssayError, FailedPrecondition, InvalidArgument
from assay_reward.inputs import TextAnswer, Truncation
from assay_reward.loaded import LoadedModel
from assay_reward.models import AnyModel, LoadOptions, RemoteModel, fingerprint_model, kind_of, load_folder
from assay_reward.models.memory import held_bytes
from assay_reward.sources import folder_of, settled_uri

_FIRST = TextAnswer(id="", path="", field="text", context=(Message("user", "Is it warm?"),), text="It is now.")


@dataclass(frozen=True, kw_only=True)
class FoundModel:
    """A model on this machine's disk."""

    uri: str
    folder: Path
    fingerprint: Fingerprint


def find_model(uri: str, cache: Path, options: LoadOptions) -> FoundModel:
    """Fetches a model where it is elsewhere, and hashes it.

    Raises:
        InvalidArgument: field `uri`; it holds no reward model.
        NotFound: field `uri`; nothing is there.
    """
    uri = settled_uri(uri)
    folder = folder_of(uri, cache)
    kind_of(folder)
    return FoundModel(uri=uri, folder=folder, fingerprint=fingerprint_model(folder, options))


def read_model(found: FoundModel, name: str, revision: str, options: LoadOptions, *, warming: Callable[[], None]) -> LoadedModel:
    """Reads a model into memory and lets it score once.

    Args:
        found: where it is.
        name: what it will be called.
        revision: empty: the first 12 digits of the fingerprint.
        options: how it is put on the machine.
        warming: called when it is read, before it scores.

    Raises:
        InvalidArgument: field `uri`; it is damaged, or not what its family wants.
        FailedPrecondition: it was being written meanwhile.
    """
    model = load_folder(found.folder, options)
    if fingerprint_model(found.folder, options) != found.fingerprint:
        raise FailedPrecondition(f"{found.uri} was being written while it was read; load it when it is whole")
    warming()
    _warm_up(model)
    return LoadedModel(
        name=name,
        revision=revision or found.fingerprint.fingerprint[:12],
        uri=found.uri,
        model=model,
        fingerprint=found.fingerprint,
        loaded_at=time.time(),
        memory_bytes=held_bytes(model),
    )


def _warm_up(model: AnyModel) -> None:
    """A first conversation goes the whole way, so that no caller waits for what template, tokenizer and device make lazily."""
    if isinstance(model, RemoteModel):
        return
    [prepared] = model.prepare([_FIRST], Truncation.RESPONSE_RIGHT)
    if isinstance(prepared, AssayError):  # a model without a chat template, for example, which scores token ids
        return
    raw = model.score([prepared]).raw[0]
    if not math.isfinite(raw):
        raise InvalidArgument("uri", f"the model's score of a first conversation is {raw}; its weights are damaged")
