"""The requests: groups of generated texts, a pool of distinct ones that is gone through again and again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from benchmarks.reward_peers.loads import LOADS, texts
from benchmarks.reward_peers.subjects import score_request

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2

_POOL = 1000


class Requests:
    """Some number of requests; those of one number are equal."""

    def __init__(self, *, candidates: int, group: int, model: str, run: str) -> None:
        """Makes the pool.

        Args:
            candidates: of all requests.
            group: of each.
            model: that scores them.
            run: begins every request's id.
        """
        self.count = -(-candidates // group)
        self.group = group
        self._model = model
        self._run = run
        load = replace(LOADS["pairs-hh"], candidates=group)
        self._pool = [score_request(one) for one in texts(load, min(self.count, _POOL), seed=11)]

    def __iter__(self) -> Iterator[reward_pb2.ScoreGroupRequest]:
        for number in range(self.count):
            request = reward_pb2.ScoreGroupRequest()
            request.CopyFrom(self._pool[number % len(self._pool)])
            request.model.name = self._model
            request.request_id = f"{self._run}-{number}"
            yield request

    def streamed(self) -> Iterator[reward_pb2.ScoreStreamRequest]:
        """The same texts as `ScoreStream` takes them: a batch of whole conversations for each group."""
        for request in self:
            batch = reward_pb2.ScoreBatchRequest(model=request.model, request_id=request.request_id)
            for candidate in request.candidates:
                turns = [*request.conversation.messages, common_pb2.Message(role=common_pb2.ROLE_ASSISTANT, content=candidate.text)]
                batch.items.add(conversation=common_pb2.Conversation(messages=turns))
            yield reward_pb2.ScoreStreamRequest(batch=batch)

    def number(self, request_id: str) -> int | None:
        """Which request an answer is to; None for that of another run."""
        run, _, number = request_id.rpartition("-")
        return int(number) if run == self._run else None
