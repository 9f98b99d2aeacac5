"""Scores that were computed before, by what was scored with which weights; bounded, the least recently used go first.

Off unless it is given room. What it returns is what was computed, to the bit. Only scores that follow from the input alone belong here;
a judge that holds the answers of a request against each other has none.
"""

from __future__ import annotations

import hashlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace

from assay_reward import metrics
from assay_reward.engine import Scored
from assay_reward.loaded import LoadedModel
from assay_reward.models.base import Prepared

_ENTRY_BYTES = 320
"""Of a key, a score and the table's own, measured with tracemalloc on CPython 3.11 and rounded up."""
_MEMBER_BYTES = 160


class ResultCache:
    """Scores of all models; safe between threads."""

    def __init__(self, *, max_bytes: int) -> None:
        """Takes the room, in bytes as accounted here; 0 keeps nothing."""
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Scored] = OrderedDict()
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        """Bytes in use, as accounted here."""
        return self._bytes

    @property
    def entries(self) -> int:
        """Scores in it."""
        return len(self._kept)

    def of(self, loaded: LoadedModel) -> ModelCache | None:
        """The part of a model, whatever its name; None where nothing is kept."""
        return ModelCache(self, loaded) if self.max_bytes else None

    def _get(self, keys: Sequence[bytes]) -> list[Scored | None]:
        with self._lock:
            found = [self._kept.get(key) for key in keys]
            for key, scored in zip(keys, found, strict=True):
                if scored is not None:
                    self._kept.move_to_end(key)
        return found

    def _put(self, key: bytes, scored: Scored) -> None:
        size = _size(scored)
        with self._lock:
            if key in self._kept or size > self.max_bytes:
                return
            self._kept[key] = scored
            self._bytes += size
            while self._bytes > self.max_bytes:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= _size(oldest)


class ModelCache:
    """The scores of one model's weights, tokenizer, template and type."""

    def __init__(self, cache: ResultCache, loaded: LoadedModel) -> None:
        self._cache = cache
        self._name = loaded.name
        self._scope = f"{loaded.fingerprint.fingerprint} {loaded.model.dtype} ".encode()

    def find(self, inputs: Sequence[Prepared]) -> dict[Prepared, Scored]:
        """What was computed before of these, marked so."""
        found = self._cache._get([self._key(item) for item in inputs])
        hits = {
            item: replace(scored, prepared=item, from_cache=True) for item, scored in zip(inputs, found, strict=True) if scored is not None
        }
        metrics.CACHE_LOOKUPS.labels(self._name, "hit").inc(len(hits))
        metrics.CACHE_LOOKUPS.labels(self._name, "miss").inc(len(inputs) - len(hits))
        return hits

    def keep(self, computed: Iterable[Scored]) -> None:
        """Keeps what was computed; the first of equals stays."""
        for scored in computed:
            self._cache._put(self._key(scored.prepared), replace(scored, prepared=_NOTHING))

    def _key(self, item: Prepared) -> bytes:
        # Every field counts but the ids as numbers, so that a field that a family adds cannot be forgotten here.
        rest: Mapping[str, object] = {field.name: getattr(item, field.name) for field in fields(item) if field.name != "ids"}
        digest = hashlib.blake2b(self._scope, digest_size=16)
        digest.update(repr((len(item.ids), rest)).encode())
        digest.update(array("q", item.ids).tobytes())
        return digest.digest()


_NOTHING = Prepared(prompt_tokens=0, response_tokens=0)


def _size(scored: Scored) -> int:
    return _ENTRY_BYTES + sum(_MEMBER_BYTES + len(member.name) for member in scored.members)
