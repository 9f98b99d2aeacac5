"""What a cleaning job leaves in its folder, and the way back from it to the input.

    kept.jsonl        pairs kept as they were
    flipped.jsonl     pairs turned round, as they are now
    dropped.jsonl     pairs left out
    clean.jsonl       kept and turned round, in the order of the input: what to train on
    labelled.jsonl    every pair in the order of the input, as it was read, with verdict and the raw row it came from
    summary.json      counts, hashes, policy, committee; written last: where it is, the others are whole

The first four are in the project's own format with ``category``, ``confidence`` and ``reason`` beside the pair.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from assay_cleaning.categories import Action, Category, Verdict
from assay_cleaning.labelling import reason_of
from assay_data.errors import DataError
from assay_data.pairs import PairFile, PairRow, pair_to_dict
from assay_data.rows import joined
from assay_data.storage import join_uri, json_line, read_json, read_jsonl

FILES: dict[Action, str] = {Action.KEEP: "kept.jsonl", Action.FLIP: "flipped.jsonl", Action.DROP: "dropped.jsonl"}
CLEAN = "clean.jsonl"
LABELLED = "labelled.jsonl"
SUMMARY = "summary.json"
COMMITTEE_FILE = "committee.json.gz"


@dataclass
class Outputs:
    """Writes the files of a cleaning job into a local folder; use as a context manager."""

    folder: Path
    rows: int = 0
    categories: Counter[Category] = field(default_factory=Counter)
    actions: Counter[Action] = field(default_factory=Counter)
    _files: dict[str, IO[bytes]] = field(default_factory=dict)
    _hashes: dict[str, Any] = field(default_factory=dict)
    _rows_of: Counter[str] = field(default_factory=Counter)
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Outputs:
        """Opens the files."""
        for name in (*FILES.values(), CLEAN, LABELLED):
            self._files[name] = self._open.enter_context((self.folder / name).open("wb"))
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the files."""
        self._open.close()

    def add(self, row: PairRow, verdict: Verdict) -> None:
        """Writes one pair where it belongs."""
        facts = {"category": verdict.category, "confidence": verdict.confidence}
        clean = verdict.clean_pair()
        now = json_line({**pair_to_dict(clean or verdict.pair), **facts, "reason": reason_of(verdict)})
        self._files[FILES[verdict.action]].write(now)
        if clean is not None:
            self._files[CLEAN].write(now)
        evidence = [
            {
                "detector": one.detector,
                "category": one.category,
                "score": one.score,
                "threshold": one.threshold,
                "confidence": one.confidence,
                "explanation": one.explanation,
            }
            for one in verdict.evidence
        ]
        labelled = {**facts, "action": verdict.action, "evidence": evidence, "pair": pair_to_dict(verdict.pair)}
        self._files[LABELLED].write(json_line({**labelled, "file": row.file, "row": row.number, "raw": row.raw}))
        self._hashes.setdefault(row.file, hashlib.sha256()).update(row.raw.encode())
        self._rows_of[row.file] += 1
        self.rows += 1
        self.categories[verdict.category] += 1
        self.actions[verdict.action] += 1

    def counts(self) -> dict[str, Any]:
        """Rows read, and how many of each category and action."""
        return {
            "rows_in": self.rows,
            "categories": {category.value: self.categories[category] for category in Category},
            "actions": {action.value: self.actions[action] for action in Action},
        }

    def inputs(self, files: list[PairFile]) -> list[dict[str, Any]]:
        """The files read: name, rows, hash of their raw rows, Arrow schema where Parquet."""
        return [
            {
                "name": file.name,
                "rows": self._rows_of[file.name],
                "raw_sha256": self._hashes[file.name].hexdigest(),
                "arrow_schema": file.schema(),
            }
            for file in files
            if file.name in self._hashes
        ]


def rebuild_input(output_uri: str) -> dict[str, Any]:
    """The input of a cleaning job from its output: of each file by name its uncompressed bytes, or for Parquet an equal Arrow table.

    Raises:
        DataError: where the output is not whole or was changed.
    """
    labelled = join_uri(output_uri, LABELLED)
    raws: dict[str, list[str]] = {}
    for row in read_jsonl(labelled):
        raws.setdefault(row["file"], []).append(row["raw"])
    rebuilt = {}
    for file in read_json(join_uri(output_uri, SUMMARY))["inputs"]:
        rows = raws.get(file["name"], [])
        if hashlib.sha256("".join(rows).encode()).hexdigest() != file["raw_sha256"]:
            raise DataError(labelled, 0, "raw", f"the rows of {file['name']} are not those that were read; the output was changed")
        rebuilt[file["name"]] = joined(iter(rows), file["arrow_schema"])
    return rebuilt
