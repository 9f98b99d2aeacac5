"""A model in memory under a name, and how the list shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from assay_data.fingerprints import Fingerprint
from assay_reward.models.base import AnyModel, HasEngine, RemoteModel, RewardModel


class State(Enum):
    """Where a model stands."""

    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"
    EVICTED = "evicted"


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in memory, under a name."""

    name: str
    revision: str
    uri: str
    model: AnyModel
    fingerprint: Fingerprint
    loaded_at: float
    """Seconds since the epoch."""
    memory_bytes: int
    """What its weights take; 0 for a model that computes elsewhere."""

    # Told once a model: a Protocol looks up each of its members by name, which would be the slowest part of a small call.

    @cached_property
    def remote(self) -> RemoteModel | None:
        """The model where it computes elsewhere."""
        return self.model if isinstance(self.model, RemoteModel) else None

    @cached_property
    def local(self) -> RewardModel | None:
        """The model where it computes on the device."""
        return None if isinstance(self.model, RemoteModel) else self.model

    @cached_property
    def engine_version(self) -> str | None:
        """What computes the model, with its version; None where this service's own engine does."""
        return self.model.engine_version if isinstance(self.model, HasEngine) else None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model as the list shows it."""

    name: str
    revision: str
    uri: str
    state: State
    fingerprint: str = ""
    """Of the model's content; of what was loaded before where it FAILED or was EVICTED."""
    loaded: LoadedModel | None = None
    failure: str = ""
    """Why it is not in memory, where it FAILED or was EVICTED."""
    aliases: tuple[str, ...] = ()


class Lease:
    """Holds a model for a call; what is unloaded waits for its leases."""

    def __init__(self, loaded: LoadedModel, release: Callable[[], None]) -> None:
        self.loaded = loaded
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Gives it back; again does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release()


def ready(loaded: LoadedModel) -> Entry:
    """The entry of a model that scores."""
    return Entry(
        name=loaded.name,
        revision=loaded.revision,
        uri=loaded.uri,
        state=State.READY,
        fingerprint=loaded.fingerprint.fingerprint,
        loaded=loaded,
    )
