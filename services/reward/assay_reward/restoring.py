"""What a start makes of the models that are remembered."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from assay_kit.errors import AssayError, FailedPrecondition
from assay_reward.loaded import Entry, State, ready
from assay_reward.memory_budget import MemoryBudget
from assay_reward.models import LoadOptions, expected_bytes
from assay_reward.reading import find_model, read_model
from assay_reward.remembered import RememberedModel
from assay_reward.residents import Residents

logger = logging.getLogger(__name__)


def restored_entries(
    remembered: Sequence[RememberedModel], wanted: set[str], cache: Path, options: LoadOptions, budget: MemoryBudget
) -> list[Entry]:
    """Loads models again, each or says why not.

    Args:
        remembered: the models.
        wanted: names that come first where there is not memory for all.
        cache: folder for models fetched from other stores.
        options: how they are put on the machine.
        budget: memory that they may take together; nobody leaves for another here.
    """
    entries: dict[str, Entry] = {}
    for kept in sorted(remembered, key=lambda kept: kept.name not in wanted):
        entries[kept.name] = _restored(kept, list(entries.values()), cache, options, replace(budget, evict=False))
    return [entries[kept.name] for kept in remembered]


def _restored(kept: RememberedModel, there: Sequence[Entry], cache: Path, options: LoadOptions, budget: MemoryBudget) -> Entry:
    entry = Entry(name=kept.name, revision=kept.revision, uri=kept.uri, state=State.EVICTED, fingerprint=kept.fingerprint)
    if kept.evicted:
        return replace(entry, failure="left memory before the last start to make room; load it again to use it")
    residents = Residents().all(there, aliases={}, changing=(), coming=kept.name)
    try:
        found = find_model(kept.uri, cache, options)
        content = found.fingerprint.fingerprint
        if content != kept.fingerprint:
            raise FailedPrecondition(
                f"{kept.uri} holds {content[:12]} now, where {kept.fingerprint[:12]} was loaded; load it again to use it"
            )
        if budget.max_bytes:
            budget.leaving(kept.name, expected_bytes(found.folder, options), residents)
        loaded = read_model(found, kept.name, kept.revision, options, warming=lambda: None)
        budget.leaving(kept.name, loaded.memory_bytes, residents)
        return ready(loaded)
    except AssayError as error:
        logger.error("model %s is not loaded again: %s", kept.name, error.message)
        return replace(entry, state=State.FAILED, failure=error.message)
