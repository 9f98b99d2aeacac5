"""One pair in, one verdict out: a function of pair, options and committee alone, the same at every door."""

from __future__ import annotations

import hashlib
import json

from assay_cleaning.categories import Action, Category, Evidence, Options, Verdict
from assay_cleaning.committee import Committee
from assay_cleaning.detectors import DETECTORS, Reading
from assay_data.conversations import PreferencePair

COMMITTEE = "committee"
"""Name of the committee among the detectors."""

COMMITTEE_DESCRIPTION = (
    "pairs whose recorded preference is more likely wrong than right, judged by Bradley-Terry models that did not see the prompt; "
    "the score is the probability that the record is wrong"
)

SAME_WITHOUT_COMMITTEE = 0.8
"""Confidence that a record is right where nothing but the record speaks: about one in five is wrong (see `committee`)."""

LONGEST_TEXT = 400_000
"""Characters that an answer or a turn may have."""


class PairError(ValueError):
    """A pair that cannot be labelled: the field at fault, and what would be right."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        self.message = message
        super().__init__(f"{field}: {message}")


class Labeller:
    """Labels pairs with fixed options and a fixed committee. Safe to share between threads."""

    def __init__(self, options: Options, committee: Committee | None = None) -> None:
        """Takes the options and the committee they name."""
        self.options = options
        self.committee = committee
        self.policy_id = policy_id(options, committee)

    def label(self, pair: PreferencePair) -> Verdict:
        """The verdict on a pair.

        Raises:
            PairError: where a text is longer than `LONGEST_TEXT`.
        """
        check(pair)
        reading = Reading(pair)
        found = [evidence for detector in DETECTORS if (evidence := detector.evidence(reading))]
        direction = self._direction(pair) if not found else None
        if found:
            category = found[0].category
            mine = [evidence for evidence in found if evidence.category is category]
            confidence = max(evidence.confidence for evidence in mine)
            found = sorted(mine, key=lambda evidence: -evidence.confidence) + [other for other in found if other.category is not category]
        elif direction:
            category, confidence, found = direction.category, direction.confidence, [direction]
        else:
            category, confidence = Category.SAME, SAME_WITHOUT_COMMITTEE
        return Verdict(
            pair=pair,
            category=category,
            confidence=confidence,
            evidence=tuple(found),
            action=self.options.rules[category],
            policy_id=self.policy_id,
        )

    def _direction(self, pair: PreferencePair) -> Evidence | None:
        if self.committee is None:
            return None
        judged = self.committee.judge(pair)
        opposite = judged.record_is_wrong >= self.options.min_flip_confidence
        wrong = f"{judged.record_is_wrong:.0%} likely to be the wrong way round" if judged.record_is_wrong >= 0.005 else "right"
        words = ", ".join(judged.reasons) or "no word of weight"
        return Evidence(
            detector=COMMITTEE,
            category=Category.OPPOSITE if opposite else Category.SAME,
            score=judged.record_is_wrong if opposite else 1 - judged.record_is_wrong,
            threshold=self.options.min_flip_confidence if opposite else 1 - self.options.min_flip_confidence,
            confidence=judged.record_is_wrong if opposite else 1 - judged.record_is_wrong,
            explanation=(
                f"{judged.votes} of {judged.members} models that never saw this prompt prefer the rejected answer; "
                f"the record is {wrong}; words that weigh most: {words}"
            ),
        )


def has_direction(pair: PreferencePair) -> bool:
    """Whether a pair has a direction to learn from: no detector finds it empty, repetitive, toxic or vague."""
    reading = Reading(pair)
    return not any(detector.evidence(reading) for detector in DETECTORS)


def check(pair: PreferencePair) -> None:
    """Refuses what is too large to be an answer.

    Raises:
        PairError: names the field.
    """
    fields = {"chosen": pair.chosen, "rejected": pair.rejected}
    fields |= {f"prompt[{index}].content": turn.content for index, turn in enumerate(pair.prompt)}
    fields |= {f"rejected_prompt[{index}].content": turn.content for index, turn in enumerate(pair.rejected_prompt)}
    for field, text in fields.items():
        if len(text) > LONGEST_TEXT:
            raise PairError(field, f"{len(text):,} characters; at most {LONGEST_TEXT:,} are labelled")


def policy_id(options: Options, committee: Committee | None = None) -> str:
    """Hash of all that verdicts depend on beside the pair; 32 hexadecimal digits."""
    facts = {
        "detectors": [
            [detector.name, detector.version, detector.category, detector.threshold, detector.top, *detector.certainty]
            for detector in DETECTORS
        ],
        "committee": committee.sha256 if committee else "",
        "min_flip_confidence": options.min_flip_confidence,
        "rules": {category: options.rules[category] for category in Category},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def reason_of(verdict: Verdict) -> str:
    """One sentence that says why a pair was dealt with as it was."""
    done = {Action.KEEP: "kept", Action.FLIP: "turned round", Action.DROP: "dropped"}[verdict.action]
    why = "; ".join(evidence.explanation for evidence in verdict.evidence if evidence.category is verdict.category)
    return f"{done}: {verdict.category.lower()} ({verdict.confidence:.2f})" + (f", {why}" if why else "")
