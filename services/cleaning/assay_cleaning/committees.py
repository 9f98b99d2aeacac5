"""Committees by URI, read once and kept."""

from __future__ import annotations

import threading
from collections import OrderedDict

from assay_cleaning.committee import Committee
from assay_data.storage import version_of

_KEPT = 4


class CommitteeCache:
    """The last few committees that were asked for; a file that has changed is read anew. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], Committee] = OrderedDict()

    def get(self, uri: str) -> Committee:
        """The committee at a URI.

        Raises:
            DataError: where there is none or it is damaged.
        """
        with self._lock:
            key = (uri, version_of(uri))
            committee = self._kept.get(key)
            if committee is None:
                committee = self._kept[key] = Committee.load(uri)
                if len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return committee
