"""Sequence classifiers with several labels, each a reward of its own; the score is their declared weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from assay_data.conversations import Message
from assay_data.fingerprints import Fingerprint, fingerprint_folder, fingerprint_of
from assay_kit.errors import AssayError, InvalidArgument
from assay_reward.inputs import ScoreInput, Truncation
from assay_reward.models.base import Computed, LoadOptions, MemberScore, ModelKind, Prepared, Rendered
from assay_reward.models.declarations import Declaration, digest_of, read_declaration
from assay_reward.models.sequence_classifier import SequenceClassifier, classifier_config, read_classifier

MARKER = "reward_heads.json"
EXAMPLE = '{"heads": {"helpful": 0.65, "safe": 0.35}}'


class HeadsDeclaration(Declaration):
    """What `reward_heads.json` holds."""

    heads: dict[Annotated[str, Field(min_length=1, max_length=128)], Annotated[float, Field(allow_inf_nan=False)]] = Field(min_length=1)
    """Weight of each head; in the order of the labels, or by their names where the configuration names them."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """One label."""

    name: str
    index: int
    """Its place among the logits."""
    weight: float


class RewardHeads:
    """A classifier of several labels in memory."""

    kind = "reward_heads"

    def __init__(self, classifier: SequenceClassifier, heads: Sequence[Head]) -> None:
        self.architecture = classifier.architecture
        self.dtype = classifier.dtype
        self.max_input_tokens = classifier.max_input_tokens
        self._classifier = classifier
        self._heads = tuple(heads)

    def prepare(self, inputs: Sequence[ScoreInput], truncation: Truncation) -> list[Prepared | AssayError]:
        """As the classifier."""
        return self._classifier.prepare(inputs, truncation)

    def render(self, conversation: tuple[Message, ...], truncation: Truncation) -> Rendered:
        """As the classifier."""
        return self._classifier.render(conversation, truncation)

    def cost(self, prepared: Sequence[Prepared]) -> int:
        """As the classifier."""
        return self._classifier.cost(prepared)

    def score(self, prepared: Sequence[Prepared]) -> Computed:
        """The weighted sum of the heads' raw logits; the logits themselves as members."""
        found = self._classifier.logits(prepared)
        members = tuple(tuple(MemberScore(name=head.name, raw=row[head.index]) for head in self._heads) for row in found.rows)
        raw = tuple(sum(head.weight * row[head.index] for head in self._heads) for row in found.rows)
        return Computed(raw=raw, computed_tokens=found.computed_tokens, padded_tokens=0, members=members)


def _heads(config: Any, declared: dict[str, float]) -> list[Head]:
    """The heads in the file's order, each with its label.

    Raises:
        InvalidArgument: field `uri`; the heads are not the labels, or all weigh 0.
    """
    labels = [str(config.id2label[index]) for index in range(config.num_labels)]
    named = labels != [f"LABEL_{index}" for index in range(config.num_labels)]
    if len(declared) != len(labels) or (named and set(declared) != set(labels)):
        wanted = f"the labels {', '.join(labels)}" if named else f"{len(labels)} labels"
        raise InvalidArgument("uri", f"{MARKER} has the heads {', '.join(declared)}, where the classifier has {wanted}")
    if not any(declared.values()):
        raise InvalidArgument("uri", f"every head in {MARKER} weighs 0; at least one must count")
    places = {name: labels.index(name) if named else index for index, name in enumerate(declared)}
    return [Head(name=name, index=places[name], weight=weight) for name, weight in declared.items()]


def _load(folder: Path, options: LoadOptions) -> RewardHeads:
    declared = read_declaration(folder / MARKER, HeadsDeclaration, EXAMPLE)
    config = classifier_config(folder)
    heads = _heads(config, declared.heads)
    return RewardHeads(read_classifier(folder, config, options), heads)


def _fingerprint(folder: Path, options: LoadOptions) -> Fingerprint:
    """The classifier's, with the declared weights among its weights."""
    declared = read_declaration(folder / MARKER, HeadsDeclaration, EXAMPLE)
    found = fingerprint_folder(folder)
    return fingerprint_of(
        weights_sha256=digest_of({"weights": found.weights_sha256, "heads": list(declared.heads.items())}),
        tokenizer_sha256=found.tokenizer_sha256,
        chat_template_sha256=found.chat_template_sha256,
    )


KIND = ModelKind(name=RewardHeads.kind, marker=MARKER, load=_load, fingerprint=_fingerprint)
