"""Cleaning a whole dataset, and fitting a committee on one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from assay_cleaning.categories import Action, Options, Verdict
from assay_cleaning.committee import Committee, TooFewPairs, fit_committee
from assay_cleaning.labelling import Labeller, PairError, has_direction
from assay_cleaning.outputs import CLEAN, COMMITTEE_FILE, FILES, LABELLED, SUMMARY, Outputs
from assay_data.conversations import PreferencePair
from assay_data.errors import DataError
from assay_data.pairs import PairRow, pair_files, read_pair_rows
from assay_data.storage import atomic_folder, join_uri, write_json

Progress = Callable[[str, int, int, str], None]
"""Called with stage, units done, units in all (0: not known) and the unit; may raise to stop the work."""

_EVERY = 64


def clean(
    *,
    input_uri: str,
    output_uri: str,
    options: Options,
    limit: int,
    committee: Committee | None,
    tag: str,
    progress: Progress,
    on_verdict: Callable[[Verdict], None],
) -> dict[str, Any]:
    """Labels every pair and writes the files of `assay_cleaning.outputs`; all of them, or none.

    Args:
        input_uri: where the pairs are.
        output_uri: folder for the files.
        options: how to clean.
        limit: at most this many pairs; 0 means all.
        committee: the committee to ask; None: one is fitted on the input itself, where it has pairs enough.
        tag: names the work, so that what a killed run of it left is removed.
        progress: told how far the work is.
        on_verdict: given each verdict.

    Returns:
        The summary: counts, policy, committee, and where the files are.

    Raises:
        DataError: names the first row that is no pair.
    """
    with atomic_folder(output_uri, tag=tag, last=(SUMMARY,)) as folder:
        committee_uri, facts = options.committee_uri, None
        if committee is None:
            committee, total = fit_on(input_uri, limit=limit, seed=0, progress=progress)
            if committee:
                committee.save(str(folder / COMMITTEE_FILE))
                committee_uri = join_uri(output_uri, COMMITTEE_FILE)
        else:
            total = 0
        if committee:
            facts = committee_facts(committee)
        labeller = Labeller(replace(options, committee_uri=committee_uri), committee)
        with Outputs(folder) as outputs:
            for row in read_pair_rows(input_uri, limit):
                verdict = labelled(labeller, row, input_uri)
                outputs.add(row, verdict)
                on_verdict(verdict)
                if outputs.rows % _EVERY == 0:
                    progress("label", outputs.rows, total, "pairs")
        progress("label", outputs.rows, outputs.rows, "pairs")
        summary = {
            **outputs.counts(),
            "policy_id": labeller.policy_id,
            "input_uri": input_uri,
            "output_uri": output_uri,
            "kept_uri": join_uri(output_uri, FILES[Action.KEEP]),
            "flipped_uri": join_uri(output_uri, FILES[Action.FLIP]),
            "dropped_uri": join_uri(output_uri, FILES[Action.DROP]),
            "clean_uri": join_uri(output_uri, CLEAN),
            "labelled_uri": join_uri(output_uri, LABELLED),
            "summary_uri": join_uri(output_uri, SUMMARY),
            "committee_uri": committee_uri,
            "committee": facts,
            "min_flip_confidence": options.min_flip_confidence,
        }
        write_json(str(folder / SUMMARY), {**summary, "inputs": outputs.inputs(pair_files(input_uri))})
    return summary


def labelled(labeller: Labeller, row: PairRow, uri: str) -> Verdict:
    """The verdict on a row.

    Raises:
        DataError: where the pair cannot be labelled.
    """
    try:
        return labeller.label(row.pair)
    except PairError as error:
        raise DataError(f"{uri} ({row.file})", row.number, error.field, error.message) from error


def fit_on(input_uri: str, *, limit: int, seed: int, progress: Progress) -> tuple[Committee | None, int]:
    """Fits a committee on the pairs of a dataset that have a direction; None where they are too few. With it the rows read."""
    usable: list[PreferencePair] = []
    rows = 0
    for row in read_pair_rows(input_uri, limit):
        rows += 1
        if has_direction(row.pair):
            usable.append(row.pair)
        if rows % _EVERY == 0:
            progress("read", rows, 0, "pairs")
    progress("read", rows, rows, "pairs")
    try:
        return fit_committee(usable, seed=seed, progress=lambda done, total: progress("fit", done, total, "models")), rows
    except TooFewPairs:
        return None, rows


def committee_facts(committee: Committee) -> dict[str, Any]:
    """What there is to say about a committee."""
    accuracy, low, high = committee.accuracy()
    return {
        "sha256": committee.sha256,
        "pairs": committee.pairs,
        "cross_fitted_accuracy": accuracy,
        "cross_fitted_accuracy_interval": [low, high],
        "estimated_rate_of_wrong_records": committee.noise,
        "temperature": committee.temperature,
        "seed": committee.seed,
    }
