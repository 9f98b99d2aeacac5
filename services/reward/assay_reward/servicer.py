"""The gRPC door to scoring."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_kit.errors import AssayError, InvalidArgument, item_error
from assay_reward.cards import QualityCards
from assay_reward.engine import Work
from assay_reward.loaded import Entry
from assay_reward.replies import model_message
from assay_reward.requests import Violations, rendered_turns, truncation_of
from assay_reward.scheduler import NO_DEADLINE
from assay_reward.scoring import Call, Scoring
from assay_reward.store import ModelStore

Reply = TypeVar("Reply")


class RewardServicer(reward_pb2_grpc.RewardServiceServicer):
    """Scores, lists and renders."""

    def __init__(
        self, *, scoring: Scoring, store: ModelStore, cards: QualityCards, tokenizing: ThreadPoolExecutor, stream_batches: int
    ) -> None:
        """Takes what it delegates to.

        Args:
            scoring: the logic of both doors.
            store: the models.
            cards: what was measured about them.
            tokenizing: where templates and tokenizers run.
            stream_batches: batches of one stream worked on at a time.
        """
        self._scoring = scoring
        self._store = store
        self._cards = cards
        self._tokenizing = tokenizing
        self._stream_batches = stream_batches

    async def ScoreGroup(self, request: reward_pb2.ScoreGroupRequest, context: Any) -> reward_pb2.ScoreGroupResponse:
        """N candidates of one conversation."""
        return await self._finished(self._scoring.group(request, door="grpc", deadline=_deadline(context)))

    async def ScoreBatch(self, request: reward_pb2.ScoreBatchRequest, context: Any) -> reward_pb2.ScoreBatchResponse:
        """Unrelated conversations."""
        return await self._finished(self._scoring.batch(request, door="grpc", deadline=_deadline(context)))

    async def ScoreStream(
        self, request_iterator: AsyncIterator[reward_pb2.ScoreStreamRequest], context: Any
    ) -> AsyncIterator[reward_pb2.ScoreStreamResponse]:
        """Batches, each answered when it is done."""
        deadline = _deadline(context)
        requests = request_iterator.__aiter__()
        reading: asyncio.Task[Any] | None = asyncio.ensure_future(anext(requests, None))
        working: set[asyncio.Task[Any]] = set()
        try:
            while reading or working:
                listening = reading if reading and len(working) < self._stream_batches else None
                done, _ = await asyncio.wait(working | ({listening} if listening else set()), return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if task is not reading:
                        working.remove(task)
                        yield task.result()
                    elif (request := task.result()) is None:
                        reading = None
                    else:
                        working.add(asyncio.ensure_future(self._stream_answer(request, deadline)))
                        reading = asyncio.ensure_future(anext(requests, None))
        finally:
            for task in working | ({reading} if reading else set()):
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
            rendered = await asyncio.get_running_loop().run_in_executor(self._tokenizing, model.render, turns, truncation)
        except InvalidArgument as error:
            raise InvalidArgument.many([(f"conversation.{field}", description) for field, description in error.violations]) from error
        finally:
            lease.release()
        response = reward_pb2.RenderPromptResponse(text=rendered.text, truncated=rendered.truncated, warnings=rendered.warnings)
        response.tokens.ids.extend(rendered.ids)
        return response

    async def _finished(self, call: Call[Reply]) -> Reply:
        """Runs a call to its reply; a caller who goes away takes with it what has not reached the device."""
        beginning = asyncio.get_running_loop().run_in_executor(self._tokenizing, call.begin)
        try:
            work = await asyncio.shield(beginning)
        except asyncio.CancelledError:
            beginning.add_done_callback(_cancelling(call))
            raise
        except BaseException:
            call.close()
            raise
        try:
            await asyncio.gather(*(asyncio.wrap_future(future) for future in work.futures))
            return call.reply(work)
        except BaseException:
            work.cancel()
            raise
        finally:
            call.close()

    async def _stream_answer(self, request: reward_pb2.ScoreStreamRequest, deadline: float) -> reward_pb2.ScoreStreamResponse:
        batch = request.batch
        try:
            reply = await self._finished(self._scoring.batch(batch, door="grpc", deadline=deadline))
        except AssayError as error:
            return reward_pb2.ScoreStreamResponse(error=item_error(error, "batch"), request_id=batch.request_id)
        return reward_pb2.ScoreStreamResponse(batch=reply, request_id=batch.request_id)

    def _model(self, entry: Entry) -> reward_pb2.ModelInfo:
        return model_message(entry, self._cards.get(entry.fingerprint), max_candidates=self._scoring.max_candidates)


def _deadline(context: Any) -> float:
    remaining = context.time_remaining()
    return NO_DEADLINE if remaining is None else time.monotonic() + remaining


def _cancelling(call: Call[Any]) -> Callable[[asyncio.Future[Work]], None]:
    def cancel(beginning: asyncio.Future[Work]) -> None:
        if not beginning.cancelled() and beginning.exception() is None:
            beginning.result().cancel()
        call.close()

    return cancel
