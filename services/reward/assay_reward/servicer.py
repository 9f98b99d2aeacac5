"""The gRPC door to scoring."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, TypeAlias

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_kit.errors import AssayError, InvalidArgument, item_error
from assay_reward.calls import caller_of, deadline_of, finished, reply_of
from assay_reward.cards import QualityCards
from assay_reward.fair_queue import Standing
from assay_reward.inputs import Priority
from assay_reward.loaded import Entry
from assay_reward.replies import model_message
from assay_reward.requests import Violations, rendered_turns, truncation_of
from assay_reward.scheduler import QueueFull, Scheduler
from assay_reward.scoring import Call, Scoring
from assay_reward.store import ModelStore
from assay_reward.tokenizing import Tokenizing

_Streamed: TypeAlias = tuple[str, Call[reward_pb2.ScoreBatchResponse] | AssayError]


class RewardServicer(reward_pb2_grpc.RewardServiceServicer):
    """Scores, lists and renders."""

    def __init__(
        self,
        *,
        scoring: Scoring,
        store: ModelStore,
        cards: QualityCards,
        scheduler: Scheduler,
        tokenizing: Tokenizing,
        stream_batches: int,
    ) -> None:
        """Takes what it delegates to.

        Args:
            scoring: the logic of both doors.
            store: the models.
            cards: what was measured about them.
            scheduler: where streams wait for room.
            tokenizing: where templates and tokenizers run.
            stream_batches: batches of one stream worked on at a time.
        """
        self._scoring = scoring
        self._store = store
        self._cards = cards
        self._scheduler = scheduler
        self._tokenizing = tokenizing
        self._stream_batches = stream_batches

    async def ScoreGroup(self, request: reward_pb2.ScoreGroupRequest, context: Any) -> reward_pb2.ScoreGroupResponse:
        """N candidates of one conversation."""
        call = self._scoring.group(request, door="grpc", caller=caller_of(context), deadline=deadline_of(context))
        return await finished(call)

    async def ScoreBatch(self, request: reward_pb2.ScoreBatchRequest, context: Any) -> reward_pb2.ScoreBatchResponse:
        """Unrelated conversations."""
        call = self._scoring.batch(request, door="grpc", caller=caller_of(context), deadline=deadline_of(context))
        return await finished(call)

    async def ScoreStream(
        self, request_iterator: AsyncIterator[reward_pb2.ScoreStreamRequest], context: Any
    ) -> AsyncIterator[reward_pb2.ScoreStreamResponse]:
        """Batches, each answered when it is done; where there is no room the stream is read no further until there is."""
        caller, deadline = caller_of(context), deadline_of(context)
        requests = request_iterator.__aiter__()
        reading: asyncio.Task[_Streamed | None] | None = asyncio.ensure_future(self._read(requests, caller, deadline))
        working: set[asyncio.Task[reward_pb2.ScoreStreamResponse]] = set()
        try:
            while reading or working:
                listening: set[asyncio.Task[Any]] = {reading} if reading and len(working) < self._stream_batches else set()
                await asyncio.wait(working | listening, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in working if task.done()]:
                    working.remove(task)
                    yield task.result()
                if listening and reading is not None and reading.done():
                    streamed = reading.result()
                    if streamed is not None:
                        answering = asyncio.ensure_future(self._stream_answer(*streamed))
                        answering.add_done_callback(partial(_close, streamed))  # also where it is cancelled before it begins
                        working.add(answering)
                    reading = asyncio.ensure_future(self._read(requests, caller, deadline)) if streamed is not None else None
        finally:
            if reading is not None and not reading.cancel() and reading.exception() is None and (unheard := reading.result()):
                _close(unheard)
            for task in working:
                task.cancel()

    async def ListModels(self, request: reward_pb2.ListModelsRequest, context: Any) -> reward_pb2.ListModelsResponse:
        """All models."""
        return reward_pb2.ListModelsResponse(models=[self._model(entry) for entry in self._store.entries()])

    async def GetModel(self, request: reward_pb2.GetModelRequest, context: Any) -> reward_pb2.GetModelResponse:
        """One model."""
        return reward_pb2.GetModelResponse(model=self._model(self._store.entry(request.model.name, request.model.revision)))

    async def RenderPrompt(self, request: reward_pb2.RenderPromptRequest, context: Any) -> reward_pb2.RenderPromptResponse:
        """What the model would see."""
        found = Violations()
        truncation = truncation_of(request.truncation, found, "truncation")
        turns = rendered_turns(request, max_bytes=self._scoring.max_text_bytes, found=found)
        found.check()
        lease = self._store.lease(request.model.name, request.model.revision)
        try:
            model = lease.loaded.model
            standing = Standing(priority=Priority.INTERACTIVE, caller=caller_of(context), deadline=deadline_of(context))
            rendering = self._tokenizing.run(lambda: model.render(turns, truncation), standing=standing, cost=request.ByteSize())
            rendered = await asyncio.wrap_future(rendering)
        except InvalidArgument as error:
            raise InvalidArgument.many([(f"conversation.{field}", description) for field, description in error.violations]) from error
        finally:
            lease.release()
        response = reward_pb2.RenderPromptResponse(text=rendered.text, truncated=rendered.truncated, warnings=rendered.warnings)
        response.tokens.ids.extend(rendered.ids)
        return response

    async def _read(self, requests: AsyncIterator[reward_pb2.ScoreStreamRequest], caller: str, deadline: float) -> _Streamed | None:
        """The next batch of a stream, with room in the queue or the reason why it is not scored; None at the end."""
        request = await anext(requests, None)
        if request is None:
            return None
        batch = request.batch
        try:
            call = self._scoring.batch(batch, door="grpc", caller=caller, deadline=deadline)
        except AssayError as error:
            return batch.request_id, error
        try:
            while True:
                room = self._scheduler.room()
                try:
                    call.admit()
                    return batch.request_id, call
                except QueueFull:
                    await asyncio.wrap_future(room)
        except AssayError as error:
            call.close()
            return batch.request_id, error
        except BaseException:
            call.close()
            raise

    async def _stream_answer(
        self, request_id: str, outcome: Call[reward_pb2.ScoreBatchResponse] | AssayError
    ) -> reward_pb2.ScoreStreamResponse:
        try:
            if isinstance(outcome, AssayError):
                raise outcome
            reply = await reply_of(outcome)
            return reward_pb2.ScoreStreamResponse(batch=reply, request_id=request_id)
        except AssayError as error:
            return reward_pb2.ScoreStreamResponse(error=item_error(error, "batch"), request_id=request_id)

    def _model(self, entry: Entry) -> reward_pb2.ModelInfo:
        return model_message(entry, self._cards.get(entry.fingerprint), max_candidates=self._scoring.max_candidates)


def _close(streamed: _Streamed, _: object = None) -> None:
    if isinstance(streamed[1], Call):
        streamed[1].close()
