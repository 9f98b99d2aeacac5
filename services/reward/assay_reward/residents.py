"""Which models are in memory, with or without a name, who uses them, and when they were last asked for."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

from assay_reward.loaded import Entry, LoadedModel
from assay_reward.memory_budget import Resident


class Residents:
    """Leases by model; not for several threads at once: the store's lock is held around every call."""

    def __init__(self) -> None:
        self._leases: dict[int, int] = {}
        self._leaving: dict[int, LoadedModel] = {}
        self._uses = itertools.count(1)
        self._last_use: dict[str, int] = {}

    def leased(self, loaded: LoadedModel) -> None:
        """A call begins with the model."""
        self._leases[id(loaded)] = self._leases.get(id(loaded), 0) + 1
        self.used(loaded.name)

    def given_back(self, key: int) -> None:
        """A call has ended; `key` is the id of its model, which nothing here must keep alive."""
        self._leases[key] -= 1
        if not self._leases[key]:
            del self._leases[key]
            self._leaving.pop(key, None)

    def used(self, name: str) -> None:
        """A model was asked for."""
        self._last_use[name] = next(self._uses)

    def are_using(self, loaded: LoadedModel | None) -> bool:
        """Whether calls are in flight with the model."""
        return id(loaded) in self._leases

    def has_no_name(self, loaded: LoadedModel | None) -> None:
        """A model was unloaded or replaced: it is in memory until its last call ends."""
        if loaded is not None and self.are_using(loaded):
            self._leaving[id(loaded)] = loaded

    def all(self, entries: Collection[Entry], *, aliases: Mapping[str, str], changing: Collection[str], coming: str) -> list[Resident]:
        """All models in memory, each with why it may not leave.

        Args:
            entries: those that have a name.
            aliases: what stands for which name.
            changing: names that are being loaded or unloaded.
            coming: the name for which room is wanted.
        """
        named = [entry.loaded for entry in entries if entry.loaded is not None]
        found = []
        for loaded in (*named, *self._leaving.values()):
            own = sorted(alias for alias, name in aliases.items() if name == loaded.name)
            stays = f"alias {', '.join(own)}" if own else ""
            if self.are_using(loaded):
                stays = "calls in flight"
            elif loaded.name == coming:
                stays = "until its new content scores"
            elif not stays and loaded.name in changing:
                stays = "about to change"
            found.append(
                Resident(
                    name=loaded.name,
                    revision=loaded.revision,
                    memory_bytes=loaded.memory_bytes,
                    last_use=self._last_use.get(loaded.name, 0),
                    stays=stays,
                )
            )
        # A name that is gone is forgotten.
        self._last_use = {one.name: one.last_use for one in found}
        return found
