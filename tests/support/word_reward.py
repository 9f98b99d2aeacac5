"""A reward service that counts words, behind the real contract and the kit's real errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_kit.errors import AssayError, InvalidArgument, NotFound, item_error
from assay_kit.server import Door

LONGEST = 200
"""Characters of an answer that are taken."""


class WordReward(reward_pb2_grpc.RewardServiceServicer):
    """+1 for "good", -1 for "bad"; knows the models "words" and "default"; `failures` are raised first, one a call to score or list."""

    def __init__(self) -> None:
        self.failures: list[AssayError] = []
        self.calls: list[str] = []
        self.fingerprint = "f" * 64
        self.max_candidates = 256

    async def ScoreGroup(self, request: reward_pb2.ScoreGroupRequest, context: Any) -> reward_pb2.ScoreGroupResponse:
        self._begin("group", request.model.name)
        long = [index for index, candidate in enumerate(request.candidates) if len(candidate.text) > LONGEST]
        if long:
            raise InvalidArgument.many([(f"candidates[{index}].text", f"at most {LONGEST} characters") for index in long])
        values = [words(candidate.text) for candidate in request.candidates]
        return reward_pb2.ScoreGroupResponse(
            scores=[reward_pb2.Score(value=value, raw=value) for value in values],
            best_index=values.index(max(values)),
            provenance=self._provenance(),
        )

    async def ScoreBatch(self, request: reward_pb2.ScoreBatchRequest, context: Any) -> reward_pb2.ScoreBatchResponse:
        self._begin("batch", request.model.name)
        results: list[reward_pb2.ScoreResult] = []
        for index, item in enumerate(request.items):
            text = item.conversation.messages[-1].content
            if len(text) > LONGEST:
                error = item_error(InvalidArgument("text", f"at most {LONGEST} characters"), f"items[{index}]")
                results.append(reward_pb2.ScoreResult(error=error))
            else:
                results.append(reward_pb2.ScoreResult(score=reward_pb2.Score(value=words(text), raw=words(text))))
        return reward_pb2.ScoreBatchResponse(results=results, provenance=self._provenance())

    async def ListModels(self, request: reward_pb2.ListModelsRequest, context: Any) -> reward_pb2.ListModelsResponse:
        self._begin("list", "")
        return reward_pb2.ListModelsResponse(models=[reward_pb2.ModelInfo(name="words")])

    async def GetModel(self, request: reward_pb2.GetModelRequest, context: Any) -> reward_pb2.GetModelResponse:
        self._check_known(request.model.name)
        return reward_pb2.GetModelResponse(
            model=reward_pb2.ModelInfo(name="words", max_candidates=self.max_candidates, provenance=self._provenance())
        )

    def _begin(self, call: str, model: str) -> None:
        self.calls.append(call)
        if self.failures:
            raise self.failures.pop(0)
        self._check_known(model)

    def _check_known(self, model: str) -> None:
        if model not in ("", "default", "words"):
            raise NotFound(f"no model {model!r}; there is: words")

    def _provenance(self) -> reward_pb2.Provenance:
        return reward_pb2.Provenance(model="words", fingerprint=self.fingerprint)


def words(text: str) -> float:
    tokens: Sequence[str] = text.split()
    return float(tokens.count("good") - tokens.count("bad"))


def reward_door(servicer: WordReward) -> Door:
    return Door(add=reward_pb2_grpc.add_RewardServiceServicer_to_server, servicer=servicer, service_name="assay.reward.v1.RewardService")
