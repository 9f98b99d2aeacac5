"""The models of this service: loaded by URI while it runs, found by name or alias, remembered across restarts.

What is loaded is written to one file before a call that changes it is answered; a start reads that file and loads the same
weights again, or says for each model why not. A model whose weights have changed where it came from is not loaded under its
old name: a score does not change its meaning by a restart.

One model is read at a time, since the readers of weights change settings of the whole process; all else goes on meanwhile. Calls
that change one name wait for each other.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from assay_kit.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from assay_reward.loaded import Entry, Lease, LoadedModel, State, ready
from assay_reward.memory_budget import MemoryBudget
from assay_reward.models import LoadOptions, expected_bytes
from assay_reward.reading import FoundModel, find_model, read_model
from assay_reward.remembered import RememberedModel, read_remembered, write_remembered
from assay_reward.residents import Residents
from assay_reward.restoring import restored_entries

logger = logging.getLogger(__name__)

DEFAULT_ALIAS = "default"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_NO_BUDGET = MemoryBudget()


class ModelStore:
    """The models, their aliases, and the file that remembers them."""

    def __init__(self, *, remembered: Path, cache: Path, options: LoadOptions, budget: MemoryBudget = _NO_BUDGET) -> None:
        """Takes where things are; `restore` reads what is remembered, and until then every call is Unavailable.

        Args:
            remembered: the JSON file.
            cache: folder for models fetched from other stores.
            options: how models are put on the machine.
            budget: memory that the models may take together.
        """
        self._remembered = remembered
        self._cache = cache
        self._options = options
        self._budget = budget
        self._reading = threading.Lock()
        """Held by whoever reads a model into memory, for as long as that takes."""
        self._writing = threading.Lock()
        """Held by whoever writes the file, so that the newest state is what stays."""
        self._state = threading.Condition()
        """Held for moments, around everything below."""
        self._entries: dict[str, Entry] = {}
        self._loading: dict[str, Entry] = {}
        """Shown in place of what does not score."""
        self._changing: set[str] = set()
        """Names that are being loaded or unloaded."""
        self._aliases: dict[str, str] = {}
        self._residents = Residents()
        self._restored = False

    def restore(self) -> None:
        """Loads again what is remembered; what an alias stands for comes first, where the memory budget has become too small for all.

        Raises:
            DataError: the file is there and is not what this service writes.
        """
        models, aliases = read_remembered(self._remembered)
        with self._reading:
            entries = restored_entries(models, set(aliases.values()), self._cache, self._options, self._budget)
            with self._state:
                self._entries, self._aliases = {entry.name: entry for entry in entries}, aliases
                self._restored = True

    def preload(self, models: Mapping[str, str]) -> None:
        """Loads the models, name to URI, whose names nothing has yet; for the start, after `restore`.

        Raises:
            AssayError: one cannot be loaded.
        """
        for name, uri in models.items():
            with self._state:
                there = self._entries.get(name)
            if there is None:
                self.load(name, uri)
            elif there.uri != uri:
                logger.warning("model %s stays the one that was loaded from %s; the start's own list has %s", name, there.uri, uri)

    def lease(self, name: str, revision: str, field: str = "model") -> Lease:
        """The model that a name (empty: the default) or alias stands for now.

        Raises:
            Unavailable: the service or the model loads or drains.
            FailedPrecondition: the model failed to load at the last start.
            NotFound: there is none of that name or revision, and says what there is; or it was evicted.
        """
        with self._state:
            loaded = self._resolved(name, revision, field)
            self._residents.leased(loaded)
        key = id(loaded)
        return Lease(loaded, lambda: self._given_back(key))

    def entries(self) -> list[Entry]:
        """All models, by name."""
        with self._state:
            self._check_restored()
            return [self._with_aliases(self._shown(name)) for name in sorted({*self._entries, *self._loading})]

    def entry(self, name: str, revision: str) -> Entry:
        """One model; one that does not score too.

        Raises:
            Unavailable: the service starts.
            NotFound: there is none of that name or revision.
        """
        with self._state:
            self._check_restored()
            return self._with_aliases(self._found(name, revision, "model"))

    def load(self, name: str, uri: str, revision: str = "") -> Entry:
        """Loads a model under a name.

        The same content from the same place again changes nothing. Other content takes the name's place at once when it is
        ready, while calls that have begun end with what they began with. A second load of a name waits for the first.

        Raises:
            InvalidArgument: field `name`, `revision` or `uri`.
            NotFound: field `uri`.
            OverBudget: there is no memory for it.
        """
        self._check_name(name, "name")
        if name == DEFAULT_ALIAS:
            raise InvalidArgument(
                "name", f"{DEFAULT_ALIAS} is the alias of the model that callers get who name none; give the model a name"
            )
        if revision and not _NAME.fullmatch(revision):
            raise InvalidArgument("revision", "1 to 128 letters, digits, '.', '_' and '-' are wanted, or nothing")
        with self._alone(lambda: name):
            with self._state:
                if name in self._aliases:
                    raise InvalidArgument("name", f"{name} is an alias of {self._aliases[name]}; a model needs a name of its own")
                before = self._entries.get(name)
                self._loading[name] = Entry(name=name, revision=revision, uri=uri, state=State.LOADING)
            try:
                found = find_model(uri, self._cache, self._options)
                if before is None or not _is_same(before.loaded, found, revision):
                    self._read(found, name, revision)
            finally:
                with self._state:
                    del self._loading[name]
            return self.entry(name, "")

    def unload(self, name: str, revision: str, *, drain_seconds: float) -> None:
        """Forgets a model with its aliases; returns when the calls in flight have ended, at the latest after `drain_seconds`.

        Raises:
            NotFound: there is none of that name or revision.
        """
        with self._alone(lambda: self._found(name, revision, "model").name):
            with self._state:
                entry = self._found(name, revision, "model")
                self._entries[entry.name] = replace(entry, state=State.DRAINING)
                self._aliases = {alias: target for alias, target in self._aliases.items() if target != entry.name}
            self._write()
            with self._state:
                self._state.wait_for(lambda: not self._residents.are_using(entry.loaded), timeout=drain_seconds)
                del self._entries[entry.name]
                self._residents.has_no_name(entry.loaded)
            logger.info("model %s %s is unloaded", entry.name, entry.revision)

    def set_alias(self, alias: str, name: str, revision: str) -> tuple[Entry | None, Entry]:
        """Lets an alias stand for a loaded model; returns what it stood for and what it stands for.

        Raises:
            InvalidArgument: field `alias`.
            NotFound: there is no such model.
        """
        self._check_name(alias, "alias")
        with self._state:
            self._check_restored()
            if alias in self._entries or alias in self._loading:
                raise InvalidArgument("alias", f"{alias} is the name of a model; an alias needs a name of its own")
            current = self._resolved(name, revision, "model").name
            before = self._aliases.get(alias)
            self._aliases[alias] = current
            shown = (
                self._with_aliases(self._entries[before]) if before in self._entries else None,
                self._with_aliases(self._entries[current]),
            )
        self._write()
        return shown

    @contextmanager
    def _alone(self, name_of: Callable[[], str]) -> Iterator[None]:
        """Waits until nobody else loads or unloads the name, and keeps others waiting."""

        def is_free() -> bool:
            self._check_restored()
            return name_of() not in self._changing

        with self._state:
            self._state.wait_for(is_free)
            name = name_of()
            self._changing.add(name)
        try:
            yield
        finally:
            with self._state:
                self._changing.remove(name)
                self._state.notify_all()

    def _read(self, found: FoundModel, name: str, revision: str) -> None:
        """Reads a model and lets it take the name's place."""

        def warming() -> None:
            with self._state:
                self._loading[name] = replace(self._loading[name], state=State.WARMING)

        with self._reading:
            if self._budget.max_bytes:
                self._make_room(name, expected_bytes(found.folder, self._options))
            loaded = read_model(found, name, revision, self._options, warming=warming)
            self._make_room(name, loaded.memory_bytes)  # it may take more than its files say, repacked for a processor for example
            with self._state:
                before = self._entries.get(name)
                self._entries[name] = ready(loaded)
                self._residents.used(name)
                self._aliases.setdefault(DEFAULT_ALIAS, name)
                self._residents.has_no_name(before.loaded if before is not None else None)
        self._write()
        logger.info("model %s %s is loaded from %s, %d bytes", name, loaded.revision, loaded.uri, loaded.memory_bytes)

    def _make_room(self, name: str, needed_bytes: int) -> None:
        """Evicts for a model what may and must leave.

        Raises:
            OverBudget: that is not enough; nothing was evicted.
        """
        with self._state:
            there = self._residents.all(self._entries.values(), aliases=self._aliases, changing=self._changing, coming=name)
            leaving = self._budget.leaving(name, needed_bytes, there)
            for one in leaving:
                failure = f"left memory to make room for {name}; load it again to use it"
                self._entries[one.name] = replace(self._entries[one.name], state=State.EVICTED, loaded=None, failure=failure)
        if leaving:
            self._write()
            logger.warning("evicted to make room for model %s: %s", name, ", ".join(one.name for one in leaving))

    def _resolved(self, name: str, revision: str, field: str) -> LoadedModel:
        self._check_restored()
        entry = self._found(name, revision, field)
        if entry.state in (State.LOADING, State.WARMING, State.DRAINING):
            raise Unavailable(f"model {entry.name} is {entry.state.value}")
        if entry.state is State.EVICTED:
            raise _not_found(f"{field}.name", f"model {entry.name} is not in memory: it {entry.failure} (from {entry.uri})")
        if entry.loaded is None:
            raise FailedPrecondition(f"model {entry.name} could not be loaded again at the start: {entry.failure}")
        return entry.loaded

    def _shown(self, name: str) -> Entry:
        entry = self._entries.get(name)
        return entry if entry is not None and entry.loaded is not None else self._loading.get(name) or self._entries[name]

    def _found(self, name: str, revision: str, field: str) -> Entry:
        wanted = name or DEFAULT_ALIAS
        found = self._aliases.get(wanted, wanted)
        if found not in self._entries and found not in self._loading:
            there = ", ".join(sorted(self._entries)) or "none"
            said = f"there is no model {wanted}; loaded are: {there}"
            if wanted == DEFAULT_ALIAS and self._entries:
                said = f"no model is the default; name one of {there}, or set the alias {DEFAULT_ALIAS}"
            raise _not_found(f"{field}.name", said)
        entry = self._shown(found)
        if revision and revision != entry.revision:
            raise _not_found(f"{field}.revision", f"model {entry.name} is loaded at revision {entry.revision}, not {revision}")
        return entry

    def _given_back(self, key: int) -> None:
        with self._state:
            self._residents.given_back(key)
            self._state.notify_all()

    def _with_aliases(self, entry: Entry) -> Entry:
        aliases = tuple(sorted(alias for alias, name in self._aliases.items() if name == entry.name))
        return replace(entry, aliases=aliases)

    def _check_restored(self) -> None:
        if not self._restored:
            raise Unavailable("the service is loading its models")

    def _check_name(self, name: str, field: str) -> None:
        if not _NAME.fullmatch(name):
            raise InvalidArgument(field, f"{name!r} is no name; 1 to 128 letters, digits, '.', '_' and '-' are wanted")

    def _write(self) -> None:
        with self._writing:
            with self._state:
                models = [_kept(entry) for entry in self._entries.values() if entry.state is not State.DRAINING]
                aliases = dict(self._aliases)
            write_remembered(self._remembered, models, aliases)


def _is_same(there: LoadedModel | None, found: FoundModel, revision: str) -> bool:
    return there is not None and (there.uri, there.fingerprint) == (found.uri, found.fingerprint) and revision in ("", there.revision)


def _kept(entry: Entry) -> RememberedModel:
    return RememberedModel(
        name=entry.name,
        revision=entry.revision,
        uri=entry.uri,
        fingerprint=entry.fingerprint,
        evicted=entry.state is State.EVICTED,
    )


def _not_found(field: str, description: str) -> NotFound:
    error = NotFound(description)
    error.violations = [(field, description)]
    return error
