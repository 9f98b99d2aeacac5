"""Client of the policy service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from assay.common.v1 import common_pb2
from assay.policy.v1 import policy_pb2, policy_pb2_grpc
from assay_client.calls import Caller
from assay_client.messages import Turn, conversation, selector


class PolicyClient:
    """Generates answers; loads and lists policies. A model is `name` or `name@revision`; empty: the only or first one loaded."""

    def __init__(self, caller: Caller) -> None:
        """Takes the channel of the service."""
        self._caller = caller

    @property
    def _stub(self) -> policy_pb2_grpc.PolicyServiceStub:
        return self._caller.stub(policy_pb2_grpc.PolicyServiceStub)

    @property
    def _admin(self) -> policy_pb2_grpc.PolicyAdminServiceStub:
        return self._caller.stub(policy_pb2_grpc.PolicyAdminServiceStub)

    def generate(
        self,
        prompts: Sequence[Sequence[Turn]],
        *,
        model: str = "",
        n: int = 1,
        sampling: policy_pb2.SamplingOptions | None = None,
        ids: Sequence[str] = (),
        timeout_seconds: float = 600.0,
    ) -> policy_pb2.GenerateResponse:
        """Samples n answers to each prompt.

        Args:
            prompts: 1 to 1,024 conversations, the last turn not the assistant's.
            model: the policy.
            n: answers to each prompt.
            sampling: length, temperature, seed.
            ids: one per prompt, echoed in its generation; empty: none.
            timeout_seconds: deadline.
        """
        request = _generate_request(prompts, model=model, n=n, sampling=sampling, ids=ids)
        return self._caller.call(self._stub.Generate, request, timeout_seconds=timeout_seconds)

    def generate_stream(
        self,
        prompts: Sequence[Sequence[Turn]],
        *,
        model: str = "",
        n: int = 1,
        sampling: policy_pb2.SamplingOptions | None = None,
        ids: Sequence[str] = (),
        timeout_seconds: float = 600.0,
    ) -> Iterator[policy_pb2.Generation]:
        """The same, each prompt's answers as soon as they are there."""
        request = policy_pb2.GenerateStreamRequest(request=_generate_request(prompts, model=model, n=n, sampling=sampling, ids=ids))
        for answer in self._caller.stream(self._stub.GenerateStream, request, timeout_seconds=timeout_seconds):
            yield answer.generation

    def best_of_n(
        self,
        messages: Sequence[Turn],
        *,
        n: int,
        policy: str = "",
        reward_model: str = "",
        sampling: policy_pb2.SamplingOptions | None = None,
        include_all: bool = False,
        timeout_seconds: float = 600.0,
    ) -> policy_pb2.BestOfNResponse:
        """Samples n answers and returns the one that the reward model scores highest.

        Args:
            messages: the conversation, the last turn not the assistant's.
            n: answers to choose from; 1 to 256.
            policy: the policy.
            reward_model: of the reward service; empty: its "default".
            sampling: length, temperature, seed.
            include_all: also return the answers not chosen.
            timeout_seconds: deadline.
        """
        request = policy_pb2.BestOfNRequest(
            policy=selector(policy),
            reward_model=selector(reward_model),
            prompt=policy_pb2.Prompt(conversation=conversation(messages)),
            n=n,
            sampling=sampling,
            include_all=include_all,
        )
        return self._caller.call(self._stub.BestOfN, request, timeout_seconds=timeout_seconds)

    def compute_log_probs(
        self, items: Sequence[tuple[Sequence[Turn], Sequence[int]]], *, model: str = "", timeout_seconds: float = 600.0
    ) -> list[float]:
        """Log-probability, in nats, of the token ids of an answer after each conversation; 1 to 4,096 items."""
        request = policy_pb2.ComputeLogProbsRequest(
            model=selector(model),
            items=[
                policy_pb2.LogProbItem(
                    prompt=policy_pb2.Prompt(conversation=conversation(messages)), tokens=common_pb2.TokenSequence(ids=tokens)
                )
                for messages, tokens in items
            ],
        )
        return list(self._caller.call(self._stub.ComputeLogProbs, request, timeout_seconds=timeout_seconds).log_probs)

    def list_models(self) -> list[policy_pb2.PolicyInfo]:
        """The policies that are loaded."""
        return list(self._caller.call(self._stub.ListModels, policy_pb2.ListModelsRequest()).models)

    def get_model(self, model: str = "") -> policy_pb2.PolicyInfo:
        """A policy."""
        return self._caller.call(self._stub.GetModel, policy_pb2.GetModelRequest(model=selector(model))).model

    def load_model(
        self,
        name: str,
        uri: str,
        *,
        backend: policy_pb2.Backend.ValueType = policy_pb2.BACKEND_UNSPECIFIED,
        served_model: str = "",
        revision: str = "",
        timeout_seconds: float = 600.0,
    ) -> policy_pb2.PolicyInfo:
        """Loads a policy under a name; returns when it is ready."""
        request = policy_pb2.LoadModelRequest(name=name, uri=uri, backend=backend, served_model=served_model, revision=revision)
        return self._caller.call(self._admin.LoadModel, request, timeout_seconds=timeout_seconds).model

    def unload_model(self, model: str) -> None:
        """Unloads a policy after its calls in flight."""
        self._caller.call(self._admin.UnloadModel, policy_pb2.UnloadModelRequest(model=selector(model)))


def _generate_request(
    prompts: Sequence[Sequence[Turn]], *, model: str, n: int, sampling: policy_pb2.SamplingOptions | None, ids: Sequence[str]
) -> policy_pb2.GenerateRequest:
    names = ids or [""] * len(prompts)
    return policy_pb2.GenerateRequest(
        model=selector(model),
        prompts=[policy_pb2.Prompt(id=name, conversation=conversation(messages)) for name, messages in zip(names, prompts, strict=True)],
        n=n,
        sampling=sampling,
    )
