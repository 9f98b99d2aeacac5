"""The gRPC door to loading and unloading; a role of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_kit.errors import InvalidArgument
from assay_reward.cards import QualityCards
from assay_reward.loaded import Entry
from assay_reward.replies import model_message
from assay_reward.store import ModelStore

DRAIN_SECONDS = 30.0
"""Longest wait for calls in flight where the caller names none."""


class ModelAdminServicer(reward_pb2_grpc.ModelAdminServiceServicer):
    """Loads, unloads, moves aliases."""

    def __init__(self, *, store: ModelStore, cards: QualityCards, max_candidates: int) -> None:
        self._store = store
        self._cards = cards
        self._max_candidates = max_candidates

    async def LoadModel(self, request: reward_pb2.LoadModelRequest, context: Any) -> reward_pb2.LoadModelResponse:
        """Loads a model; answers when it scores."""
        entry = await asyncio.to_thread(self._store.load, request.name, request.uri, request.revision)
        return reward_pb2.LoadModelResponse(model=self._model(entry))

    async def UnloadModel(self, request: reward_pb2.UnloadModelRequest, context: Any) -> reward_pb2.UnloadModelResponse:
        """Unloads a model after its calls in flight."""
        _check_named(request.model.name)
        seconds = request.drain_timeout.ToTimedelta().total_seconds() if request.HasField("drain_timeout") else DRAIN_SECONDS
        if seconds < 0:
            raise InvalidArgument("drain_timeout", f"is {seconds:g} s; 0 or more is wanted")
        await asyncio.to_thread(self._store.unload, request.model.name, request.model.revision, drain_seconds=seconds)
        return reward_pb2.UnloadModelResponse()

    async def SetAlias(self, request: reward_pb2.SetAliasRequest, context: Any) -> reward_pb2.SetAliasResponse:
        """Moves an alias."""
        _check_named(request.model.name)
        previous, current = await asyncio.to_thread(self._store.set_alias, request.alias, request.model.name, request.model.revision)
        return reward_pb2.SetAliasResponse(previous=self._model(previous) if previous else None, current=self._model(current))

    def _model(self, entry: Entry) -> reward_pb2.ModelInfo:
        return model_message(entry, self._cards.get(entry.fingerprint), max_candidates=self._max_candidates)


def _check_named(name: str) -> None:
    if not name:
        raise InvalidArgument("model.name", "is empty; the name of a loaded model is wanted")
