"""Texts to scores, in the words of whichever door they came through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import grpc

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2
from assay_kit.errors import AssayError, InvalidArgument
from assay_reward.calls import finished
from assay_reward.scoring import Scoring


@dataclass(frozen=True, kw_only=True)
class Words:
    """What a door calls the fields of a ScoreBatchRequest."""

    item: str
    """The field that holds the answers; "query" makes query[3] of items[3]."""
    model: str
    revision: str

    def of(self, field: str) -> str:
        """The door's name for a field of the contract."""
        if field.startswith("items["):
            return self.item + field.removeprefix("items").partition("]")[0] + "]"
        return {"items": self.item, "model.name": self.model, "model.revision": self.revision}.get(field, field)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores in the order of the texts, with what they cost and where they come from."""

    each: tuple[reward_pb2.Score, ...]
    provenance: reward_pb2.Provenance
    usage: reward_pb2.Usage

    @property
    def win_probabilities(self) -> list[float] | None:
        """None where the model's quality card has none, or there is no card."""
        found = [score.win_probability for score in self.each if score.HasField("win_probability")]
        return found if len(found) == len(self.each) else None


async def score_texts(
    scoring: Scoring,
    items: Sequence[reward_pb2.ScoreItem],
    *,
    model: str,
    revision: str,
    words: Words,
    door: Literal["oip", "http"],
    caller: str,
    deadline: float,
    calibrated: bool = False,
) -> Scores:
    """Scores all items or none: these doors have no place for one item's error.

    Args:
        scoring: the logic of all doors.
        items: 1 to 4,096.
        model: name or alias; empty is the default.
        revision: empty is whichever is loaded.
        words: names of the fields in errors.
        door: for the metrics.
        caller: whose it is.
        deadline: on the clock of `time.monotonic`.
        calibrated: win probabilities are wanted; FAILED_PRECONDITION where the model's quality card has none.

    Raises:
        AssayError: of the kind that the contract names, in the words of the door.
    """
    request = reward_pb2.ScoreBatchRequest(model=common_pb2.ModelSelector(name=model, revision=revision), items=items)
    if calibrated:
        request.options.scale = reward_pb2.SCORE_SCALE_CALIBRATED
    try:
        reply = await finished(scoring.batch(request, door=door, caller=caller, deadline=deadline))
        _check(reply.results)
    except AssayError as error:
        error.violations = [(words.of(field), description) for field, description in error.violations]
        if isinstance(error, InvalidArgument):
            raise InvalidArgument.many(error.violations) from error
        raise
    return Scores(each=tuple(result.score for result in reply.results), provenance=reply.provenance, usage=reply.usage)


def _check(results: Sequence[reward_pb2.ScoreResult]) -> None:
    """Raises one error for all items that have none; what is no fault of the caller goes first."""
    failed = [result.error for result in results if result.WhichOneof("outcome") == "error"]
    invalid = grpc.StatusCode.INVALID_ARGUMENT.value[0]
    for failure in failed:
        if failure.code != invalid:
            error = AssayError(f"{failure.field}: {failure.message}" if failure.field else failure.message)
            error.code = next(code for code in grpc.StatusCode if code.value[0] == failure.code)
            raise error
    if failed:
        raise InvalidArgument.many([(failure.field, _description(failure)) for failure in failed])


def _description(failure: common_pb2.ItemError) -> str:
    """The message without the item's own field in front of it, which is in `field`."""
    own = failure.field.partition("].")[2]
    return failure.message.removeprefix(f"{own}: ") if own else failure.message
