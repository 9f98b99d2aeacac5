"""Client of the reward service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from google.protobuf import duration_pb2

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_client.calls import DEFAULT_TIMEOUT_SECONDS, Caller, Patience
from assay_client.channels import Security
from assay_client.errors import ItemFailed
from assay_client.messages import Turn, conversation, selector
from assay_client.pipeline import in_order
from assay_client.reward_requests import (
    BATCH_SIZE,
    IN_FLIGHT,
    LARGEST_BATCH,
    BatchReader,
    BatchWriter,
    group_requests,
    joined_batch,
    joined_group,
    moved,
    score_options,
    starts,
)
from assay_client.scores import RenderedPrompt, Score, ScoredBatch, ScoredGroup

__all__ = ["BATCH_SIZE", "IN_FLIGHT", "LARGEST_BATCH", "RewardClient", "score_options"]


class RewardClient:
    """Scores answers; loads and lists reward models. Threads may share it.

    A model is `name` or `name@revision`; empty: the alias "default". `timeout_seconds` of a call is its deadline, retries included.
    Each call raises an `assay_client.errors.AssayClientError` of the class of its code. For coroutines there is
    `assay_client.reward_async.AsyncRewardClient`.

    Example:
        >>> import os
        >>> with RewardClient.connect(os.environ["ASSAY_REWARD_TARGET"], patience_s=10) as reward:
        ...     group = reward.score_group([{"role": "user", "content": "Is the earth flat?"}], ["No.", "Yes."])
        >>> [type(score.raw).__name__ for score in group.scores]
        ['float', 'float']
    """

    def __init__(self, caller: Caller) -> None:
        """Takes the channel of the service."""
        self._caller = caller
        self._limits: dict[str, int] = {}

    @property
    def _stub(self) -> reward_pb2_grpc.RewardServiceStub:
        return self._caller.stub(reward_pb2_grpc.RewardServiceStub)

    @property
    def _admin(self) -> reward_pb2_grpc.ModelAdminServiceStub:
        return self._caller.stub(reward_pb2_grpc.ModelAdminServiceStub)

    @classmethod
    def connect(
        cls, target: str, *, patience_s: float = 0.0, timeout_s: float = DEFAULT_TIMEOUT_SECONDS, security: Security | None = None
    ) -> Self:
        """A client with a channel of its own; connects with the first call, and closes as a context manager.

        Args:
            target: `host:port`, `dns:///name:port`, or several `address:port` with commas between; calls go round all addresses.
            patience_s: longest time that a service which is UNAVAILABLE is waited for; 0: gRPC's own short retry.
            timeout_s: deadline of a call that names none.
            security: TLS and token; None: neither.

        Example:
            >>> import os
            >>> with RewardClient.connect(os.environ["ASSAY_REWARD_TARGET"], timeout_s=30) as reward:
            ...     names = [model.name for model in reward.list_models()]
            >>> len(names) >= 1
            True
        """
        return cls(Caller("reward", target, patience=Patience(seconds=patience_s), timeout_seconds=timeout_s, security=security))

    def score_group(
        self,
        messages: Sequence[Turn],
        candidates: Sequence[str],
        *,
        model: str = "",
        options: reward_pb2.ScoreOptions | None = None,
        timeout_seconds: float | None = None,
    ) -> ScoredGroup:
        """Scores candidate answers to one conversation; any number of them.

        A group of more candidates than the service takes is sent in parts with the same conversation and joined again.

        Args:
            messages: the turns before the answer, oldest first; the last one is not the assistant's.
            candidates: the answers; at least one.
            model: the reward model.
            options: see `score_options`.
            timeout_seconds: deadline of each part; None: the client's default.

        Raises:
            InvalidArgument: `violations` names each candidate that cannot be scored, for example a too long one.
            Aborted: the model was replaced between two parts.
            AssayClientError: as the class says.

        Example:
            >>> import os
            >>> question = [{"role": "user", "content": "How do I bake bread?"}]
            >>> with RewardClient.connect(os.environ["ASSAY_REWARD_TARGET"]) as reward:
            ...     group = reward.score_group(question, [f"Answer {number}." for number in range(300)], timeout_seconds=60)
            >>> len(group.scores), group.scores[group.best_index].raw == max(score.raw for score in group.scores)
            (300, True)
        """
        requests = group_requests(
            messages, candidates, model=model, options=options, max_candidates=self._max_candidates(model, len(candidates))
        )
        calls = (partial(self._group, request, start, timeout_seconds) for request, start in zip(requests, starts(requests), strict=True))
        return joined_group(list(in_order(calls, IN_FLIGHT)) if len(requests) > 1 else [next(calls)()])

    def score_batch(
        self,
        conversations: Iterable[Sequence[Turn]],
        *,
        model: str = "",
        options: reward_pb2.ScoreOptions | None = None,
        batch_size: int = BATCH_SIZE,
        timeout_seconds: float | None = None,
    ) -> ScoredBatch:
        """Scores unrelated conversations, each ending with the assistant's turn; an item may fail by itself.

        Args:
            conversations: any number of them; those that are too many to hold are for `score_stream`.
            model: the reward model.
            options: see `score_options`.
            batch_size: items of a request; 1 to 4,096.
            timeout_seconds: deadline of each request; None: the client's default.

        Example:
            >>> import os
            >>> chat = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi!"}]
            >>> with RewardClient.connect(os.environ["ASSAY_REWARD_TARGET"]) as reward:
            ...     batch = reward.score_batch([chat, [{"role": "user", "content": "No answer here."}]])
            >>> [type(result).__name__ for result in batch.results]
            ['Score', 'ItemFailed']
        """
        return joined_batch(list(self._batches(conversations, model, options, batch_size, IN_FLIGHT, timeout_seconds)))

    def score_stream(
        self,
        conversations: Iterable[Sequence[Turn]],
        *,
        model: str = "",
        options: reward_pb2.ScoreOptions | None = None,
        batch_size: int = BATCH_SIZE,
        in_flight: int = IN_FLIGHT,
        timeout_seconds: float | None = None,
    ) -> Iterator[Score | ItemFailed]:
        """Scores any number of conversations, in order, while they come: an item's score, or why it has none.

        At most `batch_size * in_flight` items are held. The requests are single calls and not one stream of the wire, so they go round all
        addresses of the service, and each is retried by itself when a server dies.

        Args:
            conversations: each ends with the assistant's turn; read as there is room.
            model: the reward model.
            options: see `score_options`.
            batch_size: items of a request; 1 to 4,096.
            in_flight: requests under way at a time.
            timeout_seconds: deadline of each request; None: the client's default.

        Raises:
            Aborted: the model was replaced meanwhile; a model named with its revision is not.
            AssayClientError: as the class says.

        Example:
            >>> import os
            >>> def chats():
            ...     for number in range(1000):
            ...         yield [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": "Yes."}]
            >>> with RewardClient.connect(os.environ["ASSAY_REWARD_TARGET"]) as reward:
            ...     count = sum(1 for score in reward.score_stream(chats()))
            >>> count
            1000
        """
        reader = BatchReader()
        for response in self._batches(conversations, model, options, batch_size, in_flight, timeout_seconds):
            yield from reader.results(response)

    def scores(
        self,
        conversations: Iterable[Sequence[Turn]],
        *,
        model: str = "",
        options: reward_pb2.ScoreOptions | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[float]:
        """`Score.value` of any number of conversations, in order.

        Raises:
            ItemFailed: a conversation has no score; says why.

        Example:
            >>> import os
            >>> chat = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi!"}]
            >>> with RewardClient.connect(os.environ["ASSAY_REWARD_TARGET"]) as reward:
            ...     first, second = reward.scores([chat, chat])
            >>> first == second
            True
        """
        for result in self.score_stream(conversations, model=model, options=options, batch_size=batch_size):
            if isinstance(result, ItemFailed):
                raise result
            yield result.value

    def render_prompt(
        self,
        messages: Sequence[Turn],
        *,
        model: str = "",
        truncation: reward_pb2.TruncationPolicy.ValueType = reward_pb2.TRUNCATION_POLICY_ERROR,
        timeout_seconds: float | None = None,
    ) -> RenderedPrompt:
        """What the model would see of a conversation.

        Example:
            >>> import os
            >>> with RewardClient.connect(os.environ["ASSAY_REWARD_TARGET"]) as reward:
            ...     rendered = reward.render_prompt([{"role": "user", "content": "Is the earth flat?"}])
            >>> "Is the earth flat?" in rendered.text, rendered.truncated
            (True, False)
        """
        request = reward_pb2.RenderPromptRequest(model=selector(model), conversation=conversation(messages), truncation=truncation)
        return RenderedPrompt.of(self._caller.call(self._stub.RenderPrompt, request, timeout_seconds=timeout_seconds))

    def list_models(self, *, timeout_seconds: float | None = None) -> list[reward_pb2.ModelInfo]:
        """The models that are loaded or loading.

        Example:
            >>> import os
            >>> with RewardClient.connect(os.environ["ASSAY_REWARD_TARGET"]) as reward:
            ...     ready = [model.name for model in reward.list_models() if model.state == reward_pb2.MODEL_STATE_READY]
            >>> len(ready) >= 1
            True
        """
        return list(self._caller.call(self._stub.ListModels, reward_pb2.ListModelsRequest(), timeout_seconds=timeout_seconds).models)

    def get_model(self, model: str = "", *, timeout_seconds: float | None = None) -> reward_pb2.ModelInfo:
        """A model, with its quality card where it has one.

        Example:
            >>> import os
            >>> from assay_client.errors import NotFound
            >>> with RewardClient.connect(os.environ["ASSAY_REWARD_TARGET"]) as reward:
            ...     measured = reward.get_model().HasField("quality_card")
            ...     try:
            ...         reward.get_model("nobody")
            ...     except NotFound as error:
            ...         print(error.code.name)
            NOT_FOUND
        """
        request = reward_pb2.GetModelRequest(model=selector(model))
        return self._caller.call(self._stub.GetModel, request, timeout_seconds=timeout_seconds).model

    def load_model(self, name: str, uri: str, *, revision: str = "", timeout_seconds: float = 600.0) -> reward_pb2.ModelInfo:
        """Loads a model under a name; returns when it is ready.

        Example:
            >>> import os
            >>> with RewardClient.connect(os.environ["ASSAY_REWARD_TARGET"]) as reward:
            ...     model = reward.load_model("second", os.environ["ASSAY_EXAMPLE_REWARD_MODEL"])
            ...     previous = reward.set_alias("candidate", "second").HasField("previous")
            ...     reward.unload_model("second", drain_seconds=5)
            >>> model.name, previous
            ('second', False)
        """
        request = reward_pb2.LoadModelRequest(name=name, uri=uri, revision=revision)
        return self._caller.call(self._admin.LoadModel, request, timeout_seconds=timeout_seconds).model

    def unload_model(self, model: str, *, drain_seconds: float = 30.0) -> None:
        """Unloads a model after its calls in flight; `load_model` shows it."""
        drain = duration_pb2.Duration()
        drain.FromNanoseconds(round(drain_seconds * 1e9))
        request = reward_pb2.UnloadModelRequest(model=selector(model), drain_timeout=drain)
        self._caller.call(self._admin.UnloadModel, request, timeout_seconds=drain_seconds + 30)

    def set_alias(self, alias: str, model: str) -> reward_pb2.SetAliasResponse:
        """Moves an alias such as "default" to another loaded model; `load_model` shows it."""
        return self._caller.call(self._admin.SetAlias, reward_pb2.SetAliasRequest(alias=alias, model=selector(model)))

    def close(self) -> None:
        """Closes the channel."""
        self._caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def set_shadow(
        self, model: str, candidate: str, *, share: float | None = None, window: int | None = None
    ) -> reward_pb2.SetShadowResponse:
        """Lets a candidate, another loaded model, score a share of a model's calls besides; an empty candidate ends that.

        Example:
            >>> import os
            >>> with RewardClient.connect(os.environ["ASSAY_REWARD_TARGET"]) as reward:
            ...     _ = reward.load_model("candidate-model", os.environ["ASSAY_EXAMPLE_REWARD_MODEL"])
            ...     share = reward.set_shadow("", "candidate-model", share=0.5).current.share
            ...     _ = reward.score_group([{"role": "user", "content": "Hello?"}], ["Hi!", "No."])
            ...     seen = reward.get_shadow().calls_seen
            ...     _ = reward.set_shadow("", "")
            ...     reward.unload_model("candidate-model", drain_seconds=5)
            >>> share, seen
            (0.5, 1)
        """
        request = reward_pb2.SetShadowRequest(model=selector(model), candidate=selector(candidate), share=share, window=window)
        return self._caller.call(self._admin.SetShadow, request)

    def get_shadow(self, model: str = "") -> reward_pb2.ShadowReport:
        """How the candidate of a model compares with it so far; `set_shadow` shows it."""
        return self._caller.call(self._admin.GetShadow, reward_pb2.GetShadowRequest(model=selector(model))).report

    def _max_candidates(self, model: str, count: int) -> int:
        if count < 2:
            return 1
        if model not in self._limits:
            self._limits[model] = max(1, self.get_model(model).max_candidates)
        return self._limits[model]

    def _group(self, request: reward_pb2.ScoreGroupRequest, start: int, timeout_seconds: float | None) -> reward_pb2.ScoreGroupResponse:
        with moved("candidates", start):
            return self._caller.call(self._stub.ScoreGroup, request, timeout_seconds=timeout_seconds)

    def _batches(
        self,
        conversations: Iterable[Sequence[Turn]],
        model: str,
        options: reward_pb2.ScoreOptions | None,
        batch_size: int,
        in_flight: int,
        timeout_seconds: float | None,
    ) -> Iterator[reward_pb2.ScoreBatchResponse]:
        writer = BatchWriter(model=model, options=options, batch_size=batch_size)
        call = partial(self._caller.call, self._stub.ScoreBatch, timeout_seconds=timeout_seconds)

        def calls() -> Iterator[Callable[[], reward_pb2.ScoreBatchResponse]]:
            for messages in conversations:
                yield from (partial(call, request) for request in writer.add(messages))
            yield from (partial(call, request) for request in writer.rest())

        return in_order(calls(), in_flight)
