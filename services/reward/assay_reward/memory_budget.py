"""How much memory the models may take together, and which of them may leave to make room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from assay_kit.errors import AssayError

_MIB = 1024 * 1024


class OverBudget(AssayError):
    """A model does not fit. Without a time to try again: waiting does not help, somebody must decide."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


@dataclass(frozen=True, kw_only=True)
class Resident:
    """A model in memory."""

    name: str
    revision: str
    memory_bytes: int
    last_use: int
    """Greater the later it was asked for; compared only."""
    stays: str
    """Why it may not be evicted, such as "alias default"; empty where it may."""


@dataclass(frozen=True, kw_only=True)
class MemoryBudget:
    """What the models may take."""

    max_bytes: int = 0
    """0: no limit."""
    evict: bool = False
    """Whether models that nobody uses may leave by themselves."""

    def leaving(self, name: str, needed_bytes: int, residents: Sequence[Resident]) -> list[Resident]:
        """Who must leave for a model to fit: of those who may, the least recently used first; nobody where there is room.

        Args:
            name: the model that is to come.
            needed_bytes: what it takes.
            residents: all models in memory, among them what the name stands for until the new content scores.

        Raises:
            OverBudget: it does not fit whoever leaves, or nobody may.
        """
        if not self.max_bytes:
            return []
        over = sum(resident.memory_bytes for resident in residents) + needed_bytes - self.max_bytes
        leaving: list[Resident] = []
        may = [resident for resident in residents if not resident.stays and self.evict]
        for resident in sorted(may, key=lambda resident: resident.last_use):
            if over <= 0:
                break
            if resident.memory_bytes:
                leaving.append(resident)
                over -= resident.memory_bytes
        if over > 0:
            raise OverBudget(self._refusal(name, needed_bytes, residents))
        return leaving

    def _refusal(self, name: str, needed_bytes: int, residents: Sequence[Resident]) -> str:
        budget = f"the memory budget of {mib(self.max_bytes)} (ASSAY_REWARD_MEMORY_MIB)"
        if needed_bytes > self.max_bytes:
            return f"model {name} takes {mib(needed_bytes)}, more than all of {budget}; raise it"
        taken = sum(resident.memory_bytes for resident in residents)
        largest = sorted((resident for resident in residents if resident.memory_bytes), key=lambda resident: -resident.memory_bytes)
        there = ", ".join(
            f"{one.name} {one.revision} {mib(one.memory_bytes)}" + (f" ({one.stays})" if one.stays else "") for one in largest
        )
        help = f"unload a model such as {largest[0].name}, " + (
            "or raise the budget"
            if self.evict
            else "raise the budget, or let the least recently used without an alias leave (ASSAY_REWARD_EVICT=true)"
        )
        eviction = "what may leave is not enough: a model with an alias or with calls in flight stays; " if self.evict else ""
        return (
            f"model {name} takes {mib(needed_bytes)}, and {mib(max(self.max_bytes - taken, 0))} of {budget} are free; "
            f"{eviction}{help}; in memory are: {there}"
        )


def mib(size: int) -> str:
    """Bytes for people."""
    return f"{size / _MIB:.1f} MiB" if size >= _MIB / 10 else f"{size / 1024:.1f} KiB"
