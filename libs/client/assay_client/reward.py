"""Client of the reward service."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from google.protobuf import duration_pb2

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_client.calls import Caller
from assay_client.errors import item_failed
from assay_client.messages import Turn, conversation, selector

LARGEST_BATCH = 4096
_BATCH = 512


def score_options(
    *,
    scale: reward_pb2.ScoreScale.ValueType = reward_pb2.SCORE_SCALE_RAW,
    truncation: reward_pb2.TruncationPolicy.ValueType = reward_pb2.TRUNCATION_POLICY_ERROR,
    priority: reward_pb2.Priority.ValueType = reward_pb2.PRIORITY_NORMAL,
) -> reward_pb2.ScoreOptions:
    """How to score: the raw logit, refusing what is too long, in ordinary order, unless told otherwise."""
    return reward_pb2.ScoreOptions(scale=scale, truncation=truncation, priority=priority)


class RewardClient:
    """Scores answers; loads and lists reward models. A model is `name` or `name@revision`; empty: the alias "default"."""

    def __init__(self, caller: Caller) -> None:
        """Takes the channel of the service."""
        self._caller = caller
        self._stub = reward_pb2_grpc.RewardServiceStub(caller.channel)
        self._admin = reward_pb2_grpc.ModelAdminServiceStub(caller.channel)

    def score_group(
        self, messages: Sequence[Turn], candidates: Sequence[str], *, model: str = "", options: reward_pb2.ScoreOptions | None = None
    ) -> reward_pb2.ScoreGroupResponse:
        """Scores candidate answers to one conversation.

        Args:
            messages: the turns before the answer, oldest first; the last one is not the assistant's.
            candidates: the answers.
            model: the reward model.
            options: see `score_options`.
        """
        request = reward_pb2.ScoreGroupRequest(
            model=selector(model),
            conversation=conversation(messages),
            candidates=[reward_pb2.Candidate(text=text) for text in candidates],
            options=options,
        )
        return self._caller.call(self._stub.ScoreGroup, request)

    def score_batch(
        self, conversations: Sequence[Sequence[Turn]], *, model: str = "", options: reward_pb2.ScoreOptions | None = None
    ) -> reward_pb2.ScoreBatchResponse:
        """Scores up to 4,096 unrelated conversations, each ending with the assistant's turn; an item may fail by itself."""
        items = [reward_pb2.ScoreItem(conversation=conversation(messages)) for messages in conversations]
        return self._caller.call(self._stub.ScoreBatch, reward_pb2.ScoreBatchRequest(model=selector(model), items=items, options=options))

    def scores(
        self,
        conversations: Iterable[Sequence[Turn]],
        *,
        model: str = "",
        options: reward_pb2.ScoreOptions | None = None,
        batch_size: int = _BATCH,
    ) -> Iterator[float]:
        """`Score.value` of any number of conversations, in order.

        Raises:
            ItemFailed: a conversation has no score; says why.
        """
        remaining = iter(conversations)
        while batch := list(itertools.islice(remaining, batch_size)):
            for result in self.score_batch(batch, model=model, options=options).results:
                if result.HasField("error"):
                    raise item_failed(result.error)
                yield result.score.value

    def score_stream(self, batches: Iterable[reward_pb2.ScoreBatchRequest]) -> Iterator[reward_pb2.ScoreStreamResponse]:
        """Pipelined batches; answers may come out of order, matched by request_id."""
        requests = (reward_pb2.ScoreStreamRequest(batch=batch) for batch in batches)
        yield from self._caller.stream(self._stub.ScoreStream, requests)

    def render_prompt(
        self,
        messages: Sequence[Turn],
        *,
        model: str = "",
        truncation: reward_pb2.TruncationPolicy.ValueType = reward_pb2.TRUNCATION_POLICY_ERROR,
    ) -> reward_pb2.RenderPromptResponse:
        """What the model would see of a conversation."""
        request = reward_pb2.RenderPromptRequest(model=selector(model), conversation=conversation(messages), truncation=truncation)
        return self._caller.call(self._stub.RenderPrompt, request)

    def list_models(self) -> list[reward_pb2.ModelInfo]:
        """The models that are loaded or loading."""
        return list(self._caller.call(self._stub.ListModels, reward_pb2.ListModelsRequest()).models)

    def get_model(self, model: str = "") -> reward_pb2.ModelInfo:
        """A model, with its quality card where it has one."""
        return self._caller.call(self._stub.GetModel, reward_pb2.GetModelRequest(model=selector(model))).model

    def load_model(self, name: str, uri: str, *, revision: str = "", timeout_seconds: float = 600.0) -> reward_pb2.ModelInfo:
        """Loads a model under a name; returns when it is ready."""
        request = reward_pb2.LoadModelRequest(name=name, uri=uri, revision=revision)
        return self._caller.call(self._admin.LoadModel, request, timeout_seconds=timeout_seconds).model

    def unload_model(self, model: str, *, drain_seconds: float = 30.0) -> None:
        """Unloads a model after its calls in flight."""
        drain = duration_pb2.Duration()
        drain.FromNanoseconds(round(drain_seconds * 1e9))
        request = reward_pb2.UnloadModelRequest(model=selector(model), drain_timeout=drain)
        self._caller.call(self._admin.UnloadModel, request, timeout_seconds=drain_seconds + 30)

    def set_alias(self, alias: str, model: str) -> reward_pb2.SetAliasResponse:
        """Moves an alias such as "default" to another loaded model."""
        return self._caller.call(self._admin.SetAlias, reward_pb2.SetAliasRequest(alias=alias, model=selector(model)))
