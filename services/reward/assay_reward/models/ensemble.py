"""Ensembles: the weighted mean of any reward models, with how far they disagree.

An ensemble with a member that computes elsewhere computes elsewhere itself; its other members then run in that model's own
thread, one request at a time.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, field_validator

from assay_data.conversations import Message
from assay_data.fingerprints import Fingerprint, fingerprint_of
from assay_kit.errors import AssayError, InvalidArgument
from assay_reward.inputs import ScoreInput, Truncation
from assay_reward.models.base import AnyModel, Computed, LoadOptions, MemberScore, ModelKind, Prepared, RemoteModel, Rendered, RewardModel
from assay_reward.models.declarations import Declaration, digest_of, read_declaration
from assay_reward.models.members import errors_of, inside, member_folder

MARKER = "ensemble.json"
EXAMPLE = '{"members": [{"name": "a", "uri": "./a", "weight": 1.0}, {"name": "b", "uri": "./b", "weight": 1.0}]}'
NAME = "ensemble"
T = TypeVar("T")


class MemberDeclaration(Declaration):
    """One member."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    uri: Annotated[str, Field(min_length=1)]
    """A folder beside the file, or any URI of a reward model."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


class EnsembleDeclaration(Declaration):
    """What `ensemble.json` holds."""

    members: Annotated[list[MemberDeclaration], Field(min_length=1, max_length=64)]

    @field_validator("members")
    @classmethod
    def _names_differ(cls, members: list[MemberDeclaration]) -> list[MemberDeclaration]:
        if len({member.name for member in members}) < len(members):
            raise ValueError("two members have the same name; each needs one of its own")
        return members


@dataclass(frozen=True, kw_only=True)
class Together(Prepared):
    """One input, ready for every member; its counts of tokens are the most that any member is fed."""

    parts: tuple[Prepared, ...]
    """By member."""

    @property
    def tokens(self) -> int:
        """What all members are fed."""
        return sum(part.tokens for part in self.parts)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A member in memory."""

    name: str
    weight: float
    model: AnyModel


class _Members:
    """What both sorts of ensemble share."""

    kind = NAME

    def __init__(self, members: Sequence[Member]) -> None:
        models = [member.model for member in members]
        self.architecture = f"Ensemble({', '.join(model.architecture for model in models)})"
        self.dtype = ", ".join(dict.fromkeys(model.dtype for model in models))
        self.max_input_tokens = min((model.max_input_tokens for model in models if model.max_input_tokens), default=0)
        self._members = tuple(members)

    def prepare(self, inputs: Sequence[ScoreInput], truncation: Truncation) -> list[Prepared | AssayError]:
        """Prepares for every member; an input that one of them cannot score has that member's error."""
        columns = [member.model.prepare(inputs, truncation) for member in self._members]
        return [self._together(row) for row in zip(*columns, strict=True)]

    def render(self, conversation: tuple[Message, ...], truncation: Truncation) -> Rendered:
        """What each member would see, one after the other; token ids are of the first alone."""
        rendered = [member.model.render(conversation, truncation) for member in self._members]
        if len({one.text for one in rendered}) == 1:
            text = rendered[0].text
        else:
            text = "\n".join(f"[{member.name}]\n{one.text}" for member, one in zip(self._members, rendered, strict=True))
        return Rendered(
            text=text,
            ids=rendered[0].ids,
            truncated=any(one.truncated for one in rendered),
            warnings=tuple(f"{m.name}: {warning}" for m, one in zip(self._members, rendered, strict=True) for warning in one.warnings),
        )

    def _together(self, row: Sequence[Prepared | AssayError]) -> Prepared | AssayError:
        parts: list[Prepared] = []
        for member, part in zip(self._members, row, strict=True):
            if isinstance(part, AssayError):
                return of_member(member.name, part)
            parts.append(part)
        return Together(
            prompt_tokens=max(part.prompt_tokens for part in parts),
            response_tokens=max(part.response_tokens for part in parts),
            tokens_dropped=max(part.tokens_dropped for part in parts),
            parts=tuple(parts),
        )

    def _column(self, prepared: Sequence[Prepared], index: int) -> tuple[list[Prepared], list[int]]:
        """A member's distinct inputs, and for each of the ensemble's the place of its own among them."""
        parts = [item.parts[index] for item in prepared if isinstance(item, Together)]
        places = {part: place for place, part in enumerate(dict.fromkeys(parts))}
        return list(places), [places[part] for part in parts]

    def _joined(self, columns: Sequence[tuple[Computed, list[int]]], count: int) -> Computed:
        raw: list[float] = []
        std: list[float | None] = []
        members: list[tuple[MemberScore, ...]] = []
        errors: list[AssayError | None] = []
        for index in range(count):
            values = [computed.raw[places[index]] for computed, places in columns]
            failed = [
                of_member(member.name, error)
                for member, (computed, places) in zip(self._members, columns, strict=True)
                if computed.errors and (error := computed.errors[places[index]]) is not None
            ]
            errors.append(failed[0] if failed else None)
            raw.append(weighted_mean(values, [member.weight for member in self._members]))
            std.append(standard_deviation(values))
            members.append(tuple(MemberScore(name=member.name, raw=value) for member, value in zip(self._members, values, strict=True)))
        return Computed(
            raw=tuple(raw),
            computed_tokens=sum(computed.computed_tokens for computed, _ in columns),
            padded_tokens=sum(computed.padded_tokens for computed, _ in columns),
            members=tuple(members),
            std=tuple(std),
            errors=tuple(errors) if any(errors) else (),
        )


class Ensemble(_Members):
    """An ensemble whose members all compute on the device."""

    def __init__(self, members: Sequence[Member], models: Sequence[RewardModel]) -> None:
        super().__init__(members)
        self._models = tuple(models)

    def cost(self, prepared: Sequence[Prepared]) -> int:
        """Sum over the members."""
        return sum(model.cost(self._column(prepared, index)[0]) for index, model in enumerate(self._models))

    def score(self, prepared: Sequence[Prepared]) -> Computed:
        """One member after the other, in the order of the file."""
        columns = []
        for index, model in enumerate(self._models):
            inputs, places = self._column(prepared, index)
            columns.append((model.score(inputs), places))
        return self._joined(columns, len(prepared))


class RemoteEnsemble(_Members):
    """An ensemble of which at least one member computes elsewhere."""

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__(members)
        self._device = threading.Lock()

    async def ask(self, prepared: Sequence[Prepared]) -> Computed:
        """All members at once."""
        asked = [self._column(prepared, index) for index in range(len(self._members))]
        answers = await asyncio.gather(*(self._ask(member.model, inputs) for member, (inputs, _) in zip(self._members, asked, strict=True)))
        return self._joined([(answer, places) for answer, (_, places) in zip(answers, asked, strict=True)], len(prepared))

    async def _ask(self, model: AnyModel, inputs: Sequence[Prepared]) -> Computed:
        if isinstance(model, RemoteModel):
            return await model.ask(inputs)

        def alone() -> Computed:
            with self._device:
                return model.score(inputs)

        return await asyncio.to_thread(alone)


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """sum(w * x) / sum(w); NaN where a value is."""
    return math.fsum(weight * value for weight, value in zip(weights, values, strict=True)) / math.fsum(weights)


def standard_deviation(values: Sequence[float]) -> float | None:
    """Of the members' scores, unweighted, over n - 1; None below two."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


class MemberError(AssayError):
    """What is wrong with one member of an ensemble, of the code that it has for the member."""

    def __init__(self, member: str, error: AssayError) -> None:
        super().__init__(f"member {member}: {error.message}")
        self.code = error.code
        self.violations = error.violations
        self.retry_after_seconds = error.retry_after_seconds


def of_member(member: str, error: AssayError) -> AssayError:
    """A member's error as the ensemble's, naming it."""
    if isinstance(error, InvalidArgument):
        return InvalidArgument.many([(field, f"member {member}: {description}") for field, description in error.violations])
    return MemberError(member, error)


def _each(folder: Path, member: MemberDeclaration, field: str, options: LoadOptions, read: Callable[[Path, LoadOptions], T]) -> T:
    """Reads a member, with the errors naming it."""
    place = member_folder(folder, member.uri, f"{field}.uri", options)
    with errors_of(field):
        return read(place, inside(folder, options))


def kind(
    load: Callable[[Path, LoadOptions], AnyModel],
    fingerprint: Callable[[Path, LoadOptions], Fingerprint],
    weight_bytes: Callable[[Path, LoadOptions], int],
) -> ModelKind:
    """The family, given how a folder of any family is read, fingerprinted and measured."""

    def loaded(folder: Path, options: LoadOptions) -> Ensemble | RemoteEnsemble:
        declared = read_declaration(folder / MARKER, EnsembleDeclaration, EXAMPLE)
        members = [
            Member(name=member.name, weight=member.weight, model=_each(folder, member, f"members[{index}]", options, load))
            for index, member in enumerate(declared.members)
        ]
        models = [member.model for member in members if not isinstance(member.model, RemoteModel)]
        return Ensemble(members, models) if len(models) == len(members) else RemoteEnsemble(members)

    def hashed(folder: Path, options: LoadOptions) -> Fingerprint:
        """Of the members' content, names and weights, not of where they are."""
        declared = read_declaration(folder / MARKER, EnsembleDeclaration, EXAMPLE)
        found = [_each(folder, member, f"members[{index}]", options, fingerprint) for index, member in enumerate(declared.members)]
        weights = [[m.name, m.weight, one.weights_sha256] for m, one in zip(declared.members, found, strict=True)]
        return fingerprint_of(
            weights_sha256=digest_of({"kind": NAME, "members": weights}),
            tokenizer_sha256=digest_of([one.tokenizer_sha256 for one in found]),
            chat_template_sha256=digest_of([one.chat_template_sha256 for one in found]),
        )

    def measured(folder: Path, options: LoadOptions) -> int:
        declared = read_declaration(folder / MARKER, EnsembleDeclaration, EXAMPLE)
        return sum(_each(folder, member, f"members[{index}]", options, weight_bytes) for index, member in enumerate(declared.members))

    return ModelKind(name=NAME, marker=MARKER, load=loaded, fingerprint=hashed, weight_bytes=measured)
