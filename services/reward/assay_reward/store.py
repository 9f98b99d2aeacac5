"""The models of this service: loaded by URI while it runs, found by name or alias, remembered across restarts.

What is loaded is written to one file before a call that changes it is answered; a start reads that file and loads the same
weights again, or says for each model why not. A model whose weights have changed where it came from is not loaded under its
old name: a score does not change its meaning by a restart.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

from assay_kit.errors import AssayError, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from assay_reward.loaded import Entry, Lease, LoadedModel, State, ready
from assay_reward.models import LoadOptions, fingerprint_model, kind_of, load_folder
from assay_reward.remembered import RememberedModel, read_remembered, write_remembered
from assay_reward.sources import folder_of, settled_uri

logger = logging.getLogger(__name__)

DEFAULT_ALIAS = "default"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


class ModelStore:
    """The models, their aliases, and the file that remembers them."""

    def __init__(self, *, remembered: Path, cache: Path, options: LoadOptions) -> None:
        """Takes where things are; `restore` reads what is remembered, and until then every call is Unavailable.

        Args:
            remembered: the JSON file.
            cache: folder for models fetched from other stores.
            options: how models are put on the machine.
        """
        self._remembered = remembered
        self._cache = cache
        self._options = options
        self._changes = threading.Lock()
        """Held by whoever loads, unloads or moves an alias, for as long as that takes."""
        self._state = threading.Condition()
        """Held for moments, around everything below."""
        self._entries: dict[str, Entry] = {}
        self._aliases: dict[str, str] = {}
        self._leases: dict[int, int] = {}
        self._restored = False

    def restore(self) -> None:
        """Loads again what is remembered.

        Raises:
            DataError: the file is there and is not what this service writes.
        """
        models, aliases = read_remembered(self._remembered)
        with self._changes:
            entries = {item.name: self._restored_entry(item) for item in models}
            with self._state:
                self._entries, self._aliases = entries, aliases
                self._restored = True

    def lease(self, name: str, revision: str, field: str = "model") -> Lease:
        """The model that a name (empty: the default) or alias stands for now.

        Raises:
            Unavailable: the service or the model loads or drains.
            FailedPrecondition: the model failed to load at the last start.
            NotFound: there is none of that name or revision; says what there is.
        """
        with self._state:
            loaded = self._resolved(name, revision, field)
            key = id(loaded)
            self._leases[key] = self._leases.get(key, 0) + 1
        return Lease(loaded, lambda: self._given_back(key))

    def entries(self) -> list[Entry]:
        """All models, by name."""
        with self._state:
            self._check_restored()
            return [self._with_aliases(self._entries[name]) for name in sorted(self._entries)]

    def entry(self, name: str, revision: str) -> Entry:
        """One model; a failed or draining one too.

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
        ready, while calls that have begun end with what they began with.

        Raises:
            InvalidArgument: field `name`, `revision` or `uri`.
            NotFound: field `uri`.
        """
        self._check_name(name, "name")
        if name == DEFAULT_ALIAS:
            raise InvalidArgument(
                "name", f"{DEFAULT_ALIAS} is the alias of the model that callers get who name none; give the model a name"
            )
        if revision and not _NAME.fullmatch(revision):
            raise InvalidArgument("revision", "1 to 128 letters, digits, '.', '_' and '-' are wanted, or nothing")
        with self._changes:
            with self._state:
                self._check_restored()
                if name in self._aliases:
                    raise InvalidArgument("name", f"{name} is an alias of {self._aliases[name]}; a model needs a name of its own")
                before = self._entries.get(name)
                if before is None:
                    self._entries[name] = Entry(name=name, revision=revision, uri=uri, state=State.LOADING)
            try:
                loaded = self._read_model(name, uri, revision, before)
            except BaseException:
                with self._state:
                    if before is None:
                        del self._entries[name]
                raise
            if before is not None and before.loaded is loaded:
                return self.entry(name, "")
            with self._state:
                self._entries[name] = ready(loaded)
                self._aliases.setdefault(DEFAULT_ALIAS, name)
            self._write()
            logger.info("model %s %s is loaded from %s", name, loaded.revision, loaded.uri)
            return self.entry(name, "")

    def unload(self, name: str, revision: str, *, drain_seconds: float) -> None:
        """Forgets a model with its aliases; returns when the calls in flight have ended, at the latest after `drain_seconds`.

        Raises:
            NotFound: there is none of that name or revision.
        """
        with self._changes:
            with self._state:
                self._check_restored()
                entry = self._found(name, revision, "model")
                self._entries[entry.name] = replace(entry, state=State.DRAINING)
                self._aliases = {alias: target for alias, target in self._aliases.items() if target != entry.name}
            self._write()
            with self._state:
                self._state.wait_for(lambda: not self._leases.get(id(entry.loaded)), timeout=drain_seconds)
                del self._entries[entry.name]
            logger.info("model %s %s is unloaded", entry.name, entry.revision)

    def set_alias(self, alias: str, name: str, revision: str) -> tuple[Entry | None, Entry]:
        """Lets an alias stand for a loaded model; returns what it stood for and what it stands for.

        Raises:
            InvalidArgument: field `alias`.
            NotFound: there is no such model.
        """
        self._check_name(alias, "alias")
        with self._changes:
            with self._state:
                self._check_restored()
                if alias in self._entries:
                    raise InvalidArgument("alias", f"{alias} is the name of a model; an alias needs a name of its own")
                current = self._resolved(name, revision, "model").name
                before = self._aliases.get(alias)
                self._aliases[alias] = current
            self._write()
            return (self.entry(before, "") if before else None), self.entry(current, "")

    def _read_model(self, name: str, uri: str, revision: str, before: Entry | None) -> LoadedModel:
        uri = settled_uri(uri)
        folder = folder_of(uri, self._cache)
        kind_of(folder)
        found = fingerprint_model(folder, self._options)
        there = before.loaded if before is not None else None
        if there is not None and there.uri == uri and there.fingerprint == found and revision in ("", there.revision):
            return there
        model = load_folder(folder, self._options)
        if fingerprint_model(folder, self._options) != found:
            raise FailedPrecondition(f"{uri} was being written while it was read; load it when it is whole")
        return LoadedModel(
            name=name,
            revision=revision or found.fingerprint[:12],
            uri=uri,
            model=model,
            fingerprint=found,
            loaded_at=time.time(),
        )

    def _restored_entry(self, kept: RememberedModel) -> Entry:
        try:
            loaded = self._read_model(kept.name, kept.uri, kept.revision, None)
            found = loaded.fingerprint.fingerprint
            if found != kept.fingerprint:
                raise FailedPrecondition(
                    f"{kept.uri} holds {found[:12]} now, where {kept.fingerprint[:12]} was loaded; load it again to use it"
                )
            return ready(loaded)
        except AssayError as error:
            logger.error("model %s is not loaded again: %s", kept.name, error.message)
            return Entry(
                name=kept.name,
                revision=kept.revision,
                uri=kept.uri,
                state=State.FAILED,
                fingerprint=kept.fingerprint,
                failure=error.message,
            )

    def _resolved(self, name: str, revision: str, field: str) -> LoadedModel:
        self._check_restored()
        entry = self._found(name, revision, field)
        if entry.state in (State.LOADING, State.DRAINING):
            raise Unavailable(f"model {entry.name} is {entry.state.value}")
        if entry.loaded is None:
            raise FailedPrecondition(f"model {entry.name} could not be loaded again at the start: {entry.failure}")
        return entry.loaded

    def _found(self, name: str, revision: str, field: str) -> Entry:
        wanted = name or DEFAULT_ALIAS
        entry = self._entries.get(self._aliases.get(wanted, wanted))
        if entry is None:
            there = ", ".join(sorted(self._entries)) or "none"
            said = f"there is no model {wanted}; loaded are: {there}"
            if wanted == DEFAULT_ALIAS and self._entries:
                said = f"no model is the default; name one of {there}, or set the alias {DEFAULT_ALIAS}"
            raise _not_found(f"{field}.name", said)
        if revision and revision != entry.revision:
            raise _not_found(f"{field}.revision", f"model {entry.name} is loaded at revision {entry.revision}, not {revision}")
        return entry

    def _given_back(self, key: int) -> None:
        with self._state:
            self._leases[key] -= 1
            if not self._leases[key]:
                del self._leases[key]
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
        with self._state:
            kept = [entry for entry in self._entries.values() if entry.state in (State.READY, State.FAILED)]
            aliases = dict(self._aliases)
        models = [RememberedModel(name=entry.name, revision=entry.revision, uri=entry.uri, fingerprint=entry.fingerprint) for entry in kept]
        write_remembered(self._remembered, models, aliases)


def _not_found(field: str, description: str) -> NotFound:
    error = NotFound(description)
    error.violations = [(field, description)]
    return error
