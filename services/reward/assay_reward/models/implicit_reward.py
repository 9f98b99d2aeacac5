"""The reward that a DPO-trained policy implies: beta * ln(pi(y|x) / pi_ref(y|x)).

Rafailov et al. 2023, arXiv 2305.18290, section 4 (the term that depends on the prompt alone is left out: it is the same for
all answers to a prompt, so scores are comparable within a prompt). With `length_normalised` the log-ratio is divided by the
number of response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from assay_data.conversations import Message
from assay_data.fingerprints import Fingerprint, fingerprint_of
from assay_kit.errors import AssayError, InvalidArgument
from assay_reward.inputs import RawText, ScoreInput, Truncation
from assay_reward.models.base import Computed, LoadOptions, MemberScore, ModelKind, Prepared, Rendered, own_weights
from assay_reward.models.chat_inputs import ChatInputs
from assay_reward.models.chat_text import ChatText
from assay_reward.models.checkpoints import longest_input, read_tokenizer
from assay_reward.models.declarations import Declaration, digest_of, read_declaration
from assay_reward.models.log_probs import Response
from assay_reward.models.members import errors_of, files_fingerprint, inside, member_folder
from assay_reward.models.read_log_probs import LanguageModel, read_language_model

MARKER = "implicit_reward.json"
EXAMPLE = '{"policy": "./policy", "reference": "./reference", "beta": 0.1, "length_normalised": false}'


class ImplicitRewardDeclaration(Declaration):
    """What `implicit_reward.json` holds."""

    policy: Annotated[str, Field(min_length=1)]
    """URI of the policy that DPO trained."""
    reference: Annotated[str, Field(min_length=1)]
    """URI of the model it was trained from."""
    beta: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """As in training."""
    length_normalised: bool = False
    """Whether the log-ratio is the mean over the response's tokens rather than the sum."""


class ImplicitReward:
    """A policy and its reference in memory."""

    kind = "implicit_reward"

    def __init__(
        self,
        *,
        policy: LanguageModel,
        reference: LanguageModel,
        inputs: ChatInputs,
        declared: ImplicitRewardDeclaration,
        dtype: str,
        max_input_tokens: int,
    ) -> None:
        self.architecture = policy.architecture
        self.dtype = dtype
        self.max_input_tokens = max_input_tokens
        self._policy = policy.log_probs
        self._reference = reference.log_probs
        self._inputs = inputs
        self._declared = declared

    def prepare(self, inputs: Sequence[ScoreInput], truncation: Truncation) -> list[Prepared | AssayError]:
        """Renders, tokenises and cuts; refuses what has no prompt or no response."""
        prepared = self._inputs.prepare(inputs, truncation)
        return [_with_border(item, value) for item, value in zip(inputs, prepared, strict=True)]

    def render(self, conversation: tuple[Message, ...], truncation: Truncation) -> Rendered:
        """What both models would see."""
        return self._inputs.render(conversation, truncation)

    def cost(self, prepared: Sequence[Prepared]) -> int:
        """Tokens that go through the policy and those that go through the reference; each computes once what the sequences share."""
        asked = _responses(prepared)
        return self._policy.cost(asked) + self._reference.cost(asked)

    def score(self, prepared: Sequence[Prepared]) -> Computed:
        """The implied reward of each; as members both log-probabilities of the response, in nats."""
        asked = _responses(prepared)
        policy, reference = self._policy.likelihoods(asked), self._reference.likelihoods(asked)
        raw: list[float] = []
        members: list[tuple[MemberScore, ...]] = []
        for item, one, other in zip(prepared, policy.sums, reference.sums, strict=True):
            tokens = item.response_tokens if self._declared.length_normalised else 1
            raw.append(self._declared.beta * (one - other) / tokens)
            members.append((MemberScore(name="policy_log_prob", raw=one), MemberScore(name="reference_log_prob", raw=other)))
        computed = policy.computed_tokens + reference.computed_tokens
        return Computed(raw=tuple(raw), computed_tokens=computed, padded_tokens=0, members=tuple(members))


def _responses(prepared: Sequence[Prepared]) -> list[Response]:
    return [Response(item.ids, item.prompt_tokens) for item in prepared]


def _with_border(item: ScoreInput, prepared: Prepared | AssayError) -> Prepared | AssayError:
    if isinstance(prepared, AssayError):
        return prepared
    if isinstance(item, RawText) or not prepared.prompt_tokens:
        return InvalidArgument(
            item.field,
            "an implicit reward is of a response to a prompt, and here is no prompt; a conversation is wanted, or context_tokens",
        )
    if not prepared.response_tokens:
        return InvalidArgument(item.field, "the response has no tokens; at least one is wanted")
    return prepared


def _folders(folder: Path, options: LoadOptions) -> tuple[ImplicitRewardDeclaration, Path, Path]:
    declared = read_declaration(folder / MARKER, ImplicitRewardDeclaration, EXAMPLE)
    policy = member_folder(folder, declared.policy, "policy", options)
    reference = member_folder(folder, declared.reference, "reference", options)
    return declared, policy, reference


def _load(folder: Path, options: LoadOptions) -> ImplicitReward:
    declared, policy_folder, reference_folder = _folders(folder, options)
    with errors_of("policy"):
        tokenizer = read_tokenizer(policy_folder)
    with errors_of("reference"):
        read_tokenizer(reference_folder)
    hashes = [
        files_fingerprint(policy_folder, "policy").tokenizer_sha256,
        files_fingerprint(reference_folder, "reference").tokenizer_sha256,
    ]
    if hashes[0] != hashes[1]:
        raise InvalidArgument(
            "uri",
            f"policy and reference have different tokenizers (tokenizer.json is {hashes[0][:12]} and {hashes[1][:12]}); "
            "the same tokens must be likely or not under both: the reference is the model that the policy was trained from",
        )
    members = inside(folder, options)
    with errors_of("policy"):
        policy = read_language_model(policy_folder, members)
    with errors_of("reference"):
        reference = read_language_model(reference_folder, members)
    longest = min(longest_input(model.config, tokenizer, options) for model in (policy, reference))
    vocabulary = min(int(model.config.vocab_size) for model in (policy, reference))
    chat = ChatText(tokenizer, max_tokens=longest, vocabulary=vocabulary)
    return ImplicitReward(
        policy=policy,
        reference=reference,
        inputs=ChatInputs(chat, kind=ImplicitReward.kind),
        declared=declared,
        dtype=options.dtype,
        max_input_tokens=longest,
    )


def _fingerprint(folder: Path, options: LoadOptions) -> Fingerprint:
    """Of both models' content and of what is declared, not of where they are; tokenizer and template are the policy's."""
    declared, policy, reference = _folders(folder, options)
    found = files_fingerprint(policy, "policy")
    weights = {
        "kind": ImplicitReward.kind,
        "policy": found.weights_sha256,
        "reference": files_fingerprint(reference, "reference").weights_sha256,
        "beta": declared.beta,
        "length_normalised": declared.length_normalised,
    }
    return fingerprint_of(
        weights_sha256=digest_of(weights), tokenizer_sha256=found.tokenizer_sha256, chat_template_sha256=found.chat_template_sha256
    )


def _weight_bytes(folder: Path, options: LoadOptions) -> int:
    _, policy, reference = _folders(folder, options)
    with errors_of("policy"):
        size = own_weights(policy, options)
    with errors_of("reference"):
        return size + own_weights(reference, options)


KIND = ModelKind(name=ImplicitReward.kind, marker=MARKER, load=_load, fingerprint=_fingerprint, weight_bytes=_weight_bytes)
