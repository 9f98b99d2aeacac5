"""The gRPC door to loading and unloading; a role of its own."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_kit.errors import InvalidArgument, NotFound
from assay_reward.cards import QualityCards
from assay_reward.loaded import Entry
from assay_reward.replies import model_message, provenance_message, shadow_message
from assay_reward.shadow import Shadow, Shadows
from assay_reward.store import ModelStore

T = TypeVar("T")

WAITING_CALLS = 32
"""Loads and unloads under way at a time, those that wait for others of their name among them; one more waits for a thread."""
DRAIN_SECONDS = 30.0
"""Longest wait for calls in flight where the caller names none."""
SHADOW_ANSWERS = 20_000
"""Answers that a shadow remembers where the caller names no number."""
SHADOW_WINDOW = range(100, 1_000_001)
"""How many a caller may name; 16 bytes each."""


class ModelAdminServicer(reward_pb2_grpc.ModelAdminServiceServicer):
    """Loads, unloads, moves aliases, sets shadows."""

    def __init__(self, *, store: ModelStore, cards: QualityCards, shadows: Shadows, max_candidates: int) -> None:
        self._store = store
        self._cards = cards
        self._shadows = shadows
        self._max_candidates = max_candidates
        # Apart from the threads that all others use: many slow loads must not keep an alias from being moved.
        self._threads = ThreadPoolExecutor(max_workers=WAITING_CALLS, thread_name_prefix="models")

    async def LoadModel(self, request: reward_pb2.LoadModelRequest, context: Any) -> reward_pb2.LoadModelResponse:
        """Loads a model; answers when it scores."""
        entry = await self._slowly(lambda: self._store.load(request.name, request.uri, request.revision))
        return reward_pb2.LoadModelResponse(model=self._model(entry))

    async def UnloadModel(self, request: reward_pb2.UnloadModelRequest, context: Any) -> reward_pb2.UnloadModelResponse:
        """Unloads a model after its calls in flight."""
        _check_named(request.model.name)
        seconds = request.drain_timeout.ToTimedelta().total_seconds() if request.HasField("drain_timeout") else DRAIN_SECONDS
        if seconds < 0:
            raise InvalidArgument("drain_timeout", f"is {seconds:g} s; 0 or more is wanted")
        model = request.model
        await self._slowly(lambda: self._store.unload(model.name, model.revision, drain_seconds=seconds))
        return reward_pb2.UnloadModelResponse()

    async def SetAlias(self, request: reward_pb2.SetAliasRequest, context: Any) -> reward_pb2.SetAliasResponse:
        """Moves an alias."""
        _check_named(request.model.name)
        previous, current = await asyncio.to_thread(self._store.set_alias, request.alias, request.model.name, request.model.revision)
        return reward_pb2.SetAliasResponse(previous=self._model(previous) if previous else None, current=self._model(current))

    async def SetShadow(self, request: reward_pb2.SetShadowRequest, context: Any) -> reward_pb2.SetShadowResponse:
        """Lets a candidate score beside a model, or ends that."""
        share = request.share if request.HasField("share") else 1.0
        window = request.window if request.HasField("window") else SHADOW_ANSWERS
        wrong = []
        if not 0 < share <= 1:
            wrong.append(("share", f"is {share:g}; above 0 and at most 1 is wanted"))
        if not SHADOW_WINDOW.start <= window < SHADOW_WINDOW.stop:
            wrong.append(("window", f"is {window}; {SHADOW_WINDOW.start} to {SHADOW_WINDOW.stop - 1} answers are wanted"))
        if wrong:
            raise InvalidArgument.many(wrong)
        model = self._provenance(request.model, "model")
        shadow = None
        if request.candidate.name:
            shadow = Shadow(model=model, candidate=self._provenance(request.candidate, "candidate"), share=share, window=window)
        previous = self._shadows.put(model.model, shadow)
        return reward_pb2.SetShadowResponse(
            previous=await asyncio.to_thread(shadow_message, previous) if previous else None,
            current=shadow_message(shadow) if shadow else None,
        )

    async def GetShadow(self, request: reward_pb2.GetShadowRequest, context: Any) -> reward_pb2.GetShadowResponse:
        """How the candidate compares."""
        lease = self._store.lease(request.model.name, request.model.revision)
        try:
            shadow = self._shadows.of(lease.loaded)
        finally:
            lease.release()
        if shadow is None:
            raise NotFound(f"model {lease.loaded.name} {lease.loaded.revision} has no shadow; SetShadow gives it one")
        return reward_pb2.GetShadowResponse(report=await asyncio.to_thread(shadow_message, shadow))

    async def _slowly(self, work: Callable[[], T]) -> T:
        """Does what may take minutes; it goes on where the caller goes away."""
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: context.run(work))

    def _provenance(self, selector: common_pb2.ModelSelector, field: str) -> reward_pb2.Provenance:
        lease = self._store.lease(selector.name, selector.revision, field)
        try:
            return provenance_message(lease.loaded, self._cards.get(lease.loaded.fingerprint.fingerprint))
        finally:
            lease.release()

    def _model(self, entry: Entry) -> reward_pb2.ModelInfo:
        return model_message(entry, self._cards.get(entry.fingerprint), max_candidates=self._max_candidates)


def _check_named(name: str) -> None:
    if not name:
        raise InvalidArgument("model.name", "is empty; the name of a loaded model is wanted")
