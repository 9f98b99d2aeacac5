"""The Open Inference Protocol's door: clients of KServe and Triton find the same models and the same scores."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from assay.inference.v2 import open_inference_pb2 as pb
from assay.inference.v2 import open_inference_pb2_grpc
from assay_kit.errors import NotFound, Unavailable
from assay_reward.calls import caller_of, deadline_of
from assay_reward.cards import QualityCards
from assay_reward.doors.tensors import PROMPT, RESPONSE, SCORE, TEXT, WIN_PROBABILITY, add_output, items_of, wanted_outputs
from assay_reward.doors.texts import Words, score_texts
from assay_reward.loaded import Entry, State
from assay_reward.scoring import Scoring
from assay_reward.store import ModelStore

SERVICE_NAME = "inference.GRPCInferenceService"


class OpenInferenceServicer(open_inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Says what there is, and scores."""

    def __init__(self, *, scoring: Scoring, store: ModelStore, cards: QualityCards) -> None:
        self._scoring = scoring
        self._store = store
        self._cards = cards

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Any) -> pb.ServerLiveResponse:
        """It answers."""
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Any) -> pb.ServerReadyResponse:
        """Whether the models that it had are loaded again."""
        try:
            self._store.entries()
        except Unavailable:
            return pb.ServerReadyResponse(ready=False)
        return pb.ServerReadyResponse(ready=True)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:
        """Whether a model scores; one that is not there does not."""
        try:
            entry = self._store.entry(request.name, request.version)
        except (NotFound, Unavailable):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=entry.state is State.READY)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Any) -> pb.ServerMetadataResponse:
        """Name and version."""
        return pb.ServerMetadataResponse(name="assay-reward", version=version("assay-reward"))

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:
        """Inputs and outputs."""
        entry = self._store.entry(request.name, request.version)
        return pb.ModelMetadataResponse(
            name=entry.name,
            versions=[entry.revision],
            platform=f"assay_{entry.loaded.model.kind}" if entry.loaded is not None else "",
            inputs=[_any_size(name, "BYTES") for name in (TEXT, PROMPT, RESPONSE)],
            outputs=[_any_size(name, "FP64") for name in self._outputs(entry)],
        )

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        """Scores."""
        wanted = wanted_outputs(request)
        items, name = items_of(request)
        scores = await score_texts(
            self._scoring,
            items,
            model=request.model_name,
            revision=request.model_version,
            words=Words(item=name, model="model_name", revision="model_version"),
            door="oip",
            caller=caller_of(context),
            deadline=deadline_of(context),
            calibrated=WIN_PROBABILITY in wanted,
        )
        there = {SCORE: [score.raw for score in scores.each]}
        if scores.win_probabilities is not None:
            there[WIN_PROBABILITY] = scores.win_probabilities
        provenance = scores.provenance
        response = pb.ModelInferResponse(model_name=provenance.model, model_version=provenance.revision, id=request.id)
        response.parameters["fingerprint"].string_param = provenance.fingerprint
        if provenance.calibration_id:
            response.parameters["calibration_id"].string_param = provenance.calibration_id
        for output in wanted or there:
            add_output(response, output, there[output], raw=bool(request.raw_input_contents))
        return response

    def _outputs(self, entry: Entry) -> list[str]:
        card = self._cards.get(entry.fingerprint)
        return [SCORE, WIN_PROBABILITY] if card is not None and card.temperature > 0 else [SCORE]


def _any_size(name: str, datatype: str) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=name, datatype=datatype, shape=[-1])
