"""Sequence classifiers served by vLLM, for models that outgrow a device: templates, tokenizer and truncation are here, the forward there.

The raw score is the logit that the local classifier gives. vLLM reads the last token and transformers the last that is no padding, which
an answer's end is where a checkpoint pads with its end-of-sequence token; in a decoder nothing after the position that is read moves it,
so a sequence is sent up to there. Whether a server has the weights of the declared checkpoint cannot be seen from here: only that all
servers score some probes alike, then and whenever one comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import numpy as np
from pydantic import Field, field_validator

from assay_data.conversations import Message
from assay_data.fingerprints import Fingerprint
from assay_kit.errors import AssayError, InvalidArgument
from assay_reward.inputs import ScoreInput, Truncation
from assay_reward.models.base import Computed, LoadOptions, ModelKind, Prepared, Rendered, no_weights
from assay_reward.models.chat_inputs import ChatInputs
from assay_reward.models.chat_text import ChatText
from assay_reward.models.checkpoints import architecture_of, longest_input, read_tokenizer
from assay_reward.models.declarations import ApiKeyVariable, Declaration, read_api_key, read_declaration
from assay_reward.models.members import errors_of, files_fingerprint, member_folder
from assay_reward.models.packed.families import Family, family_of, read_position
from assay_reward.models.sequence_classifier import classifier_config
from assay_reward.models.vllm_server_pool import Expected, VllmPool
from assay_reward.models.vllm_server_wire import Connections, Ids, VllmWire

MARKER = "vllm_server.json"
EXAMPLE = '{"servers": ["http://host:8000"], "served_model": "rm", "checkpoint": "hf://org/reward-model", "dtype": "bfloat16"}'
_TOLERANCE = {"float32": 1e-3}
_TOLERANCE_NARROW = 0.1
_PROBES, _PROBE_TOKENS = 4, 24


class VllmServerDeclaration(Declaration):
    """What `vllm_server.json` holds."""

    servers: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    """Addresses, for example "http://host:8000"; all serve the same model."""
    served_model: Annotated[str, Field(min_length=1)]
    """As the servers name it: `--served-model-name`."""
    checkpoint: Annotated[str, Field(min_length=1)]
    """URI of what they serve; tokenizer, chat template, configuration and fingerprint are read from it, its weights only hashed."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type of the weights on the servers, `--dtype`: they do not tell."""
    max_outstanding_tokens: Annotated[int, Field(ge=1)] = 65_536
    """Most tokens that one server is sent at a time; what is over waits here."""
    request_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """Longest wait for one request, after which the server counts as away."""
    api_key_env: ApiKeyVariable | None = None

    @field_validator("servers")
    @classmethod
    def _are_http(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        for server in servers:
            parts = urlsplit(server)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or parts.query or parts.username:
                raise ValueError(f"{server!r} is no server; http://host:port or https://host:port is wanted, without a path")
        settled = tuple(server.rstrip("/") for server in servers)
        if len(set(settled)) < len(settled):
            raise ValueError("each server is wanted once")
        return settled


class VllmServer:
    """A sequence classifier on vLLM servers."""

    kind = "vllm_server"

    def __init__(self, *, pool: VllmPool, config: Any, family: Family, tokenizer: Any, dtype: str, max_input_tokens: int) -> None:
        self.architecture = architecture_of(config)
        self.dtype = dtype
        self.max_input_tokens = max_input_tokens
        chat = ChatText(tokenizer, max_tokens=max_input_tokens, vocabulary=config.get_text_config().vocab_size)
        self._inputs = ChatInputs(chat, kind=self.kind)
        self._pool = pool
        self._family = family
        self._padding: int | None = config.get_text_config().pad_token_id

    @property
    def engine_version(self) -> str:
        """What computes: vLLM, at the versions of the servers that have been in."""
        return f"assay-reward {version('assay-reward')}, vllm {self._pool.versions}"

    def prepare(self, inputs: Sequence[ScoreInput], truncation: Truncation) -> list[Prepared | AssayError]:
        """As the local classifier: renders, tokenises and cuts."""
        return self._inputs.prepare(inputs, truncation)

    def render(self, conversation: tuple[Message, ...], truncation: Truncation) -> Rendered:
        """What the model would see; a conversation that does not end with an answer is shown up to where one would begin."""
        return self._inputs.render(conversation, truncation)

    async def ask(self, prepared: Sequence[Prepared]) -> Computed:
        """The logit of each, in order. `computed_tokens` are those sent; what the servers had in their caches they do not tell."""
        sequences = [self._sent(item.ids) for item in prepared]
        scores = await self._pool.classify(sequences)
        return Computed(
            raw=tuple(float("nan") if isinstance(score, AssayError) else score for score in scores),
            computed_tokens=sum(len(ids) for ids in set(sequences)),
            padded_tokens=0,
            errors=tuple(score if isinstance(score, AssayError) else None for score in scores),
        )

    def _sent(self, ids: Ids) -> Ids:
        return ids[: read_position(np.asarray(ids), self._family, self._padding) + 1]


def _checkpoint(folder: Path, options: LoadOptions) -> tuple[VllmServerDeclaration, Path]:
    declared = read_declaration(folder / MARKER, VllmServerDeclaration, EXAMPLE)
    return declared, member_folder(folder, declared.checkpoint, "checkpoint", options)


def _load(folder: Path, options: LoadOptions) -> VllmServer:
    """Tokenizer and configuration of the checkpoint, and a look at the servers: one must be there at least, and all that are be right."""
    declared, checkpoint = _checkpoint(folder, options)
    with errors_of("checkpoint"):
        config = classifier_config(checkpoint)
        tokenizer = read_tokenizer(checkpoint)
        family = _family(config)
    api_key = read_api_key(declared.api_key_env, folder / MARKER)
    pool = VllmPool(
        [
            VllmWire(address=address, model=declared.served_model, timeout_seconds=declared.request_timeout_seconds)
            for address in declared.servers
        ],
        connections=Connections(api_key),
        expected=Expected(
            probes=_probes(int(config.get_text_config().vocab_size)),
            tolerance=_TOLERANCE.get(declared.dtype or "", _TOLERANCE_NARROW),
            has_activation=getattr(config, "problem_type", None) != "regression",
        ),
        max_outstanding_tokens=declared.max_outstanding_tokens,
    )
    asyncio.run(pool.look())
    return VllmServer(
        pool=pool,
        config=config,
        family=family,
        tokenizer=tokenizer,
        dtype=declared.dtype or "",
        max_input_tokens=min(longest_input(config.get_text_config(), tokenizer, options), pool.max_model_len),
    )


def _family(config: Any) -> Family:
    """Of a decoder that vLLM and transformers are known to read at the same position.

    Raises:
        InvalidArgument: field `uri`; it is none, or has several labels.
    """
    architecture = architecture_of(config)
    family = family_of(architecture, config.get_text_config())
    if family is None or family.reads != "last_not_padding":
        raise InvalidArgument(
            "uri",
            f"the architecture is {architecture}; for vLLM a Llama, Mistral, Qwen2, Qwen3 or Gemma classifier is wanted, with a rope "
            "that is the same for all lengths",
        )
    if config.num_labels != 1:
        raise InvalidArgument("uri", f"the classifier has {config.num_labels} labels; a reward model on vLLM has num_labels 1")
    return family


def _probes(vocabulary: int) -> tuple[Ids, ...]:
    """Sequences of tokens from all of the vocabulary, without one that may mean padding at the end."""
    return tuple(tuple((7919 * (place + 1) + 104_729 * probe) % vocabulary for place in range(_PROBE_TOKENS)) for probe in range(_PROBES))


def _fingerprint(folder: Path, options: LoadOptions) -> Fingerprint:
    """The checkpoint's own: the same content has the same quality card, wherever it is computed."""
    _, checkpoint = _checkpoint(folder, options)
    return files_fingerprint(checkpoint, "checkpoint")


KIND = ModelKind(name=VllmServer.kind, marker=MARKER, load=_load, fingerprint=_fingerprint, weight_bytes=no_weights)
