"""The reward client without its wire: what is sent, cut to what the service takes, and what is made of the answers.

`assay_client.reward` and `assay_client.reward_async` put it on the wire; neither has logic of its own.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import grpc

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2
from assay_client.channels import MESSAGE_BYTES
from assay_client.errors import Aborted, AssayClientError, ItemFailed, item_failed
from assay_client.messages import Turn, conversation, selector
from assay_client.scores import Provenance, Score, ScoredBatch, ScoredGroup, Usage

LARGEST_BATCH = 4096
"""Most items of one request, by the contract."""
BATCH_SIZE = 256
"""Items of one request, unless told otherwise."""
IN_FLIGHT = 8
"""Requests of one call that are under way at a time, unless told otherwise."""
_TEXT_BYTES = MESSAGE_BYTES // 4

Item = TypeVar("Item")


def score_options(
    *,
    scale: reward_pb2.ScoreScale.ValueType = reward_pb2.SCORE_SCALE_RAW,
    truncation: reward_pb2.TruncationPolicy.ValueType = reward_pb2.TRUNCATION_POLICY_ERROR,
    priority: reward_pb2.Priority.ValueType = reward_pb2.PRIORITY_NORMAL,
) -> reward_pb2.ScoreOptions:
    """How to score: the raw logit, refusing what is too long, in ordinary order, unless told otherwise.

    Example:
        >>> from assay.reward.v1 import reward_pb2
        >>> options = score_options(truncation=reward_pb2.TRUNCATION_POLICY_PROMPT_LEFT)
        >>> reward_pb2.TruncationPolicy.Name(options.truncation)
        'TRUNCATION_POLICY_PROMPT_LEFT'
    """
    return reward_pb2.ScoreOptions(scale=scale, truncation=truncation, priority=priority)


def truncation_named(name: str) -> reward_pb2.TruncationPolicy.ValueType:
    """A truncation policy by its name in settings: "error", "prompt_left" or "response_right".

    Raises:
        ValueError: there is none of that name.
    """
    known = {"error", "prompt_left", "response_right"}
    if name not in known:
        raise ValueError(f"truncation is {name!r}; one of {', '.join(sorted(known))} is wanted")
    return reward_pb2.TruncationPolicy.Value(f"TRUNCATION_POLICY_{name.upper()}")


def group_requests(
    messages: Sequence[Turn],
    candidates: Sequence[str],
    *,
    model: str,
    options: reward_pb2.ScoreOptions | None,
    max_candidates: int,
) -> list[reward_pb2.ScoreGroupRequest]:
    """A group, cut where the service or a message holds no more; each part has the same conversation. At least one part."""
    chosen, context = selector(model), conversation(messages)
    gathering: _Parts[str] = _Parts(max_candidates)
    parts = [part for text in candidates for part in gathering.add(text, len(text.encode()))] + gathering.rest()
    return [
        reward_pb2.ScoreGroupRequest(
            model=chosen, conversation=context, candidates=[reward_pb2.Candidate(text=text) for text in part], options=options
        )
        for part in parts or [[]]
    ]


def starts(requests: Sequence[reward_pb2.ScoreGroupRequest]) -> list[int]:
    """Index of each part's first candidate in the whole group."""
    positions = [0]
    for request in requests[:-1]:
        positions.append(positions[-1] + len(request.candidates))
    return positions


def joined_group(responses: Sequence[reward_pb2.ScoreGroupResponse]) -> ScoredGroup:
    """The parts as one group.

    Raises:
        Aborted: two models scored, so that the scores do not compare.
    """
    _check_one_model(*(response.provenance for response in responses))
    scores = tuple(Score.of(score) for response in responses for score in response.scores)
    return ScoredGroup(
        scores=scores,
        best_index=max(range(len(scores)), key=lambda index: (scores[index].raw, -index)),
        provenance=Provenance.of(responses[0].provenance),
        usage=Usage.of(*(response.usage for response in responses)),
    )


class BatchWriter:
    """Cuts conversations of any number into requests, as they come."""

    def __init__(self, *, model: str, options: reward_pb2.ScoreOptions | None, batch_size: int) -> None:
        """Nothing has come yet; `batch_size` is 1 to 4,096."""
        if not 1 <= batch_size <= LARGEST_BATCH:
            raise ValueError(f"batch_size is {batch_size}; 1 to {LARGEST_BATCH} are wanted")
        self._model = selector(model)
        self._options = options
        self._parts: _Parts[common_pb2.Conversation] = _Parts(batch_size)

    def add(self, messages: Sequence[Turn]) -> Iterator[reward_pb2.ScoreBatchRequest]:
        """Takes one more conversation; gives the request that is full by it, if one is."""
        one = conversation(messages)
        return map(self._request, self._parts.add(one, one.ByteSize()))

    def rest(self) -> Iterator[reward_pb2.ScoreBatchRequest]:
        """The request of those that are left, if there are any."""
        return map(self._request, self._parts.rest())

    def _request(self, part: list[common_pb2.Conversation]) -> reward_pb2.ScoreBatchRequest:
        items = [reward_pb2.ScoreItem(conversation=one) for one in part]
        return reward_pb2.ScoreBatchRequest(model=self._model, items=items, options=self._options)


class BatchReader:
    """Reads the answers to the requests of a `BatchWriter`, in order."""

    def __init__(self) -> None:
        self._first: reward_pb2.Provenance | None = None
        self._start = 0

    def results(self, response: reward_pb2.ScoreBatchResponse) -> list[Score | ItemFailed]:
        """The results of one request; an error names the item by its place in the whole.

        Raises:
            Aborted: another model scored than before, so that the scores do not compare.
        """
        if self._first is None:
            self._first = response.provenance
        _check_one_model(self._first, response.provenance)
        start, self._start = self._start, self._start + len(response.results)
        return [
            _moved_item(item_failed(result.error), start) if result.HasField("error") else Score.of(result.score)
            for result in response.results
        ]


def joined_batch(responses: Sequence[reward_pb2.ScoreBatchResponse]) -> ScoredBatch:
    """The parts as one batch.

    Raises:
        Aborted: two models scored, so that the scores do not compare.
    """
    reader = BatchReader()
    return ScoredBatch(
        results=tuple(result for response in responses for result in reader.results(response)),
        provenance=Provenance.of(responses[0].provenance if responses else reward_pb2.Provenance()),
        usage=Usage.of(*(response.usage for response in responses)),
    )


@contextlib.contextmanager
def moved(field: str, start: int) -> Iterator[None]:
    """Makes errors of a part name what is wrong by its place in the whole: candidates[3] of the part from 256 on is candidates[259]."""
    try:
        yield
    except AssayClientError as error:
        if start:
            violations = [(_moved(path, field, start), description) for path, description in error.violations]
            raise type(error)(error.code, _moved(error.message, field, start), violations, error.retry_after_seconds) from error
        raise


def _moved(text: str, field: str, start: int) -> str:
    return re.sub(rf"\b{field}\[(\d+)\]", lambda found: f"{field}[{int(found[1]) + start}]", text)


def _moved_item(failed: ItemFailed, start: int) -> ItemFailed:
    violations = [(_moved(path, "items", start), _moved(description, "items", start)) for path, description in failed.violations]
    return ItemFailed(failed.code, _moved(failed.message, "items", start), violations, failed.retry_after_seconds)


class _Parts(Generic[Item]):
    """Gathers items to parts of at most so many, and of no more bytes than a message holds with ease."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._part: list[Item] = []
        self._bytes = 0

    def add(self, item: Item, size: int) -> list[list[Item]]:
        done = self.rest() if self._part and self._bytes + size > _TEXT_BYTES else []
        self._part.append(item)
        self._bytes += size
        return done + self.rest() if len(self._part) == self._most else done

    def rest(self) -> list[list[Item]]:
        done = [self._part] if self._part else []
        self._part, self._bytes = [], 0
        return done


def _check_one_model(first: reward_pb2.Provenance, *others: reward_pb2.Provenance) -> None:
    for other in others:
        if other.fingerprint != first.fingerprint:
            raise Aborted(
                grpc.StatusCode.ABORTED,
                f"{first.model}@{first.revision} ({first.fingerprint[:12]}) scored one part and {other.model}@{other.revision} "
                f"({other.fingerprint[:12]}) another, so the scores do not compare; ask again, or name a revision, as in 'name@revision'",
            )
