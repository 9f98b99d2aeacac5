"""The models of the service: loaded by name, replaced at once, remembered across restarts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay_data.storage import read_json, write_json
from assay_kit.errors import AssayError, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from assay_policy.backends.registry import BackendKind, Backends, fingerprint_of, is_http, model_folder
from assay_policy.generation import Facts, GenerationBackend
from assay_policy.metrics import MODELS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Source:
    """What was asked for when a model was loaded."""

    uri: str
    kind: BackendKind
    served_model: str = ""
    revision: str = ""


@dataclass(kw_only=True)
class Policy:
    """A loaded model."""

    name: str
    source: Source
    backend: GenerationBackend
    loaded_at: datetime
    facts: Facts = field(init=False)
    _calls: int = field(default=0, init=False)
    _retired: bool = field(default=False, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        """Takes the facts of the backend."""
        self.facts = self.backend.facts

    @property
    def revision(self) -> str:
        """As asked for, or the first 12 digits of the fingerprint, or the served name."""
        return self.source.revision or self.facts.fingerprint[:12] or self.facts.served_model

    def enter(self) -> None:
        """A call begins."""
        with self._lock:
            self._calls += 1

    def leave(self) -> None:
        """A call has ended; the last one of a retired model closes it."""
        with self._lock:
            self._calls -= 1
            last = self._retired and self._calls == 0
        if last:
            self.backend.close()

    def retire(self) -> None:
        """No call begins any more; closes the model after those in flight."""
        with self._lock:
            self._retired = True
            idle = self._calls == 0
        if idle:
            self.backend.close()


class Catalogue:
    """All models, in the order they were loaded."""

    def __init__(self, backends: Backends, file: Path) -> None:
        """Empty until `restore`.

        Args:
            backends: what makes them.
            file: JSON file that remembers what is loaded.
        """
        self._backends = backends
        self._file = file
        self._policies: dict[str, Policy] = {}
        self._broken: dict[str, tuple[Source, Facts, AssayError]] = {}
        self._loading = threading.Lock()
        self._lock = threading.Lock()

    def restore(self, preload: Mapping[str, str]) -> None:
        """Loads what was loaded before the last end, then the models of `preload` (name to URI) that are not there yet.

        A remembered model that is gone, or another one by now, does not keep the others from serving: who asks for it is told why.
        """
        remembered = read_json(str(self._file)) if self._file.exists() else []
        with self._loading:
            for entry in remembered:
                name, source, facts = entry["name"], _source(entry["source"]), Facts(**entry["facts"])
                try:
                    self._put(name, source, self._made_again(source, facts))
                except AssayError as error:
                    logger.error("the model %s cannot be loaded again from %s: %s", name, source.uri, error)
                    self._broken[name] = (source, facts, error)
        for name, uri in preload.items():
            if name not in self._policies:
                self.load(name, uri)

    def load(self, name: str, uri: str, *, kind: BackendKind | None = None, served_model: str = "", revision: str = "") -> Policy:
        """Loads a model under a name, and puts it in the place of the one that had the name; blocks until it is ready.

        The same name and content again changes nothing.

        Raises:
            AssayError: it cannot be loaded; what had the name still has it.
        """
        kind = kind or (BackendKind.OPENAI if is_http(uri) else BackendKind.TRANSFORMERS)
        source = Source(uri=uri, kind=kind, served_model=served_model, revision=revision)
        with self._loading:
            held = self._policies.get(name)
            if held is not None and held.source == source and self._same_content(held):
                return held
            policy = self._put(name, source, self._backends.make(kind, uri, served_model=served_model))
            self._remember()
        logger.info("the model %s is loaded from %s (%s)", name, uri, kind.value)
        return policy

    def unload(self, name: str, revision: str = "") -> None:
        """Takes a model away; it is closed after its calls in flight.

        Raises:
            NotFound: there is none of that name and revision.
        """
        with self._loading:
            if not name:
                raise InvalidArgument("model.name", "which model to unload must be said")
            with self._lock:
                broken = self._broken.pop(name, None)
            if broken is None:
                policy = self.get(name, revision)
                with self._lock:
                    del self._policies[name]
                policy.retire()
            self._remember()
            self._count()

    def get(self, name: str = "", revision: str = "") -> Policy:
        """The model of a name; an empty name is the first one loaded.

        Raises:
            NotFound: there is none; says which there are.
            FailedPrecondition: it was loaded before the last restart and cannot be loaded any more; says why.
        """
        with self._lock:
            return self._find(name, revision)

    def lease(self, name: str = "", revision: str = "") -> Policy:
        """As `get`, for a call: the model stays open until `leave`."""
        with self._lock:
            policy = self._find(name, revision)
            policy.enter()
            return policy

    def all(self) -> list[Policy]:
        """The models by name."""
        with self._lock:
            return sorted(self._policies.values(), key=lambda policy: policy.name)

    def close(self) -> None:
        """Closes every model and what they share; what is loaded stays remembered."""
        with self._lock:
            policies = list(self._policies.values())
            self._policies.clear()
        for policy in policies:
            policy.retire()
        self._backends.close()

    def _find(self, name: str, revision: str) -> Policy:
        if name in self._broken:
            source, _, error = self._broken[name]
            kind = Unavailable if isinstance(error, Unavailable) else FailedPrecondition
            raise kind(f"the model {name} could not be loaded again from {source.uri}: {error.message}")
        policy = self._policies.get(name) if name else next(iter(self._policies.values()), None)
        if policy is None or (revision and revision != policy.revision):
            there = ", ".join(f"{policy.name} ({policy.revision})" for policy in self._policies.values())
            asked = f"no model is named {name or 'by default'!r}" + (f" at revision {revision!r}" if revision else "")
            raise NotFound(f"{asked}; there {'are ' + there if there else 'is none, load one with LoadModel'}")
        return policy

    def _made_again(self, source: Source, facts: Facts) -> GenerationBackend:
        backend = self._backends.make(source.kind, source.uri, served_model=source.served_model, known=facts)
        if backend.facts.fingerprint != facts.fingerprint:
            backend.close()
            raise FailedPrecondition("its files have changed since it was loaded; LoadModel takes them as they are now")
        return backend

    def _same_content(self, held: Policy) -> bool:
        if held.source.kind is not BackendKind.TRANSFORMERS:
            return True
        return fingerprint_of(model_folder(held.source.uri)) == held.facts.fingerprint

    def _put(self, name: str, source: Source, backend: GenerationBackend) -> Policy:
        policy = Policy(name=name, source=source, backend=backend, loaded_at=datetime.now(UTC))
        with self._lock:
            before = self._policies.get(name)
            self._policies[name] = policy
            self._broken.pop(name, None)
        if before is not None:
            before.retire()
        self._count()
        return policy

    def _count(self) -> None:
        with self._lock:
            kinds = [policy.source.kind for policy in self._policies.values()]
        for kind in BackendKind:
            MODELS.labels(kind.value).set(kinds.count(kind))

    def _remember(self) -> None:
        with self._lock:
            loaded = [(policy.name, policy.source, policy.facts) for policy in self._policies.values()]
            broken = [(name, source, facts) for name, (source, facts, _) in self._broken.items()]
        write_json(str(self._file), [_entry(*one) for one in loaded + broken])


def _entry(name: str, source: Source, facts: Facts) -> dict[str, Any]:
    return {"name": name, "source": {**asdict(source), "kind": source.kind.value}, "facts": asdict(facts)}


def _source(entry: Mapping[str, Any]) -> Source:
    return Source(**{**entry, "kind": BackendKind(entry["kind"])})
