"""Verdicts, options and detectors to and from their protobuf messages."""

from __future__ import annotations

import math

from assay.cleaning.v1 import cleaning_pb2
from assay.common.v1 import common_pb2
from assay_cleaning.categories import DEFAULT_RULES, Action, Category, Evidence, Options, Verdict
from assay_cleaning.detectors import DETECTORS
from assay_cleaning.labelling import COMMITTEE, COMMITTEE_DESCRIPTION
from assay_data.conversations import PreferencePair
from assay_data.wire import from_proto, to_proto
from assay_kit.errors import InvalidArgument

CATEGORIES: dict[Category, cleaning_pb2.Category.ValueType] = {
    category: cleaning_pb2.Category.Value(f"CATEGORY_{category}") for category in Category
}
ACTIONS: dict[Action, cleaning_pb2.Action.ValueType] = {action: cleaning_pb2.Action.Value(f"ACTION_{action}") for action in Action}
_CATEGORY_OF = {number: category for category, number in CATEGORIES.items()}
_ACTION_OF = {number: action for action, number in ACTIONS.items()}


def options_from_proto(message: cleaning_pb2.CleaningOptions, *, min_flip_confidence: float, field: str = "options") -> Options:
    """The options of a request.

    Args:
        message: the options as sent.
        min_flip_confidence: the service's default.
        field: path of the options in the request.

    Raises:
        InvalidArgument: names each field that is wrong.
    """
    rules = dict(DEFAULT_RULES)
    wrong: list[tuple[str, str]] = []
    for index, rule in enumerate(message.rules):
        category, action = _CATEGORY_OF.get(rule.category), _ACTION_OF.get(rule.action)
        if category is None:
            wrong.append((f"{field}.rules[{index}].category", f"one of {', '.join(f'CATEGORY_{name}' for name in Category)} is wanted"))
        if action is None:
            wrong.append((f"{field}.rules[{index}].action", f"one of {', '.join(f'ACTION_{name}' for name in Action)} is wanted"))
        if category is not None and action is not None:
            rules[category] = action
    confidence = message.min_flip_confidence
    if math.isnan(confidence) or not 0 <= confidence <= 1:
        wrong.append((f"{field}.min_flip_confidence", f"{confidence} is no probability; 0 (the default) to 1 is wanted"))
    if wrong:
        raise InvalidArgument.many(wrong)
    return Options(rules=rules, min_flip_confidence=confidence or min_flip_confidence, committee_uri=message.committee_uri)


def pair_from_proto(message: common_pb2.PreferencePair) -> PreferencePair:
    """The pair of a request.

    Raises:
        InvalidArgument: names the field that is wrong.
    """
    try:
        pair = from_proto(message)
    except ValueError as error:
        field, _, description = str(error).partition(": ")
        raise InvalidArgument(field, description) from error
    if message.id and message.id != pair.id:
        raise InvalidArgument("id", f"{message.id!r} is not the content's hash, which is {pair.id}; leave it empty to have it computed")
    return pair


def verdict_to_proto(verdict: Verdict) -> cleaning_pb2.LabelledPair:
    """A verdict as it travels."""
    return cleaning_pb2.LabelledPair(
        pair=to_proto(verdict.pair),
        category=CATEGORIES[verdict.category],
        confidence=verdict.confidence,
        evidence=[_evidence_to_proto(evidence) for evidence in verdict.evidence],
        action=ACTIONS[verdict.action],
        policy_id=verdict.policy_id,
    )


def detectors_to_proto(*, min_flip_confidence: float) -> list[cleaning_pb2.Detector]:
    """All detectors in the order they are asked, the committee last."""
    listed = [
        cleaning_pb2.Detector(
            name=detector.name, category=CATEGORIES[detector.category], description=detector.description, threshold=detector.threshold
        )
        for detector in DETECTORS
    ]
    committee = cleaning_pb2.Detector(
        name=COMMITTEE, category=cleaning_pb2.CATEGORY_OPPOSITE, description=COMMITTEE_DESCRIPTION, threshold=min_flip_confidence
    )
    return [*listed, committee]


def _evidence_to_proto(evidence: Evidence) -> cleaning_pb2.Evidence:
    return cleaning_pb2.Evidence(
        detector=evidence.detector,
        category=CATEGORIES[evidence.category],
        score=evidence.score,
        threshold=evidence.threshold,
        explanation=evidence.explanation,
    )
