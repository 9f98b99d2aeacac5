"""Reads a classifier's weights and settles how it is computed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from assay_reward.models import qwen2_reward
from assay_reward.models.base import LoadOptions
from assay_reward.models.checkpoints import architecture_of, read_weights
from assay_reward.models.forwards import Forward, PlainForward
from assay_reward.models.packed.encoder import PackedEncoder
from assay_reward.models.packed.encoder_families import encoder_of
from assay_reward.models.packed.families import family_of
from assay_reward.models.packed.forward import PackedForward

_PROBE_TOKENS = 80
_ALIKE = {"float32": 1e-3}
_ALIKE_NARROW = 0.1

_log = logging.getLogger(__name__)


def read_forward(folder: Path, config: Any, options: LoadOptions) -> Forward:
    """The packed forward where the family is known and gives what the model's own forward gives; else that.

    Raises:
        InvalidArgument: field `uri`; the weights are not whole.
    """
    architecture = architecture_of(config)
    auto_class = qwen2_reward.Qwen2ForRewardModel if architecture == qwen2_reward.ARCHITECTURE else AutoModelForSequenceClassification
    model = read_weights(auto_class, folder, architecture, options)
    asked = probes(config)
    wanted = torch.tensor(PlainForward(model).logits(asked).rows)
    packed = _packed(architecture, config, model)
    if packed is None:
        return PlainForward(model)
    found = torch.tensor(packed.logits(asked).rows)
    allowed = allowed_difference(options) * wanted.abs().clamp_min(1.0)
    if bool(((found - wanted).abs() <= allowed).all()):
        return packed
    _log.warning(
        "%s in %s is computed by its own forward, slowly: the packed one gives %s for a probe where that gives %s",
        architecture,
        folder,
        found.flatten().tolist(),
        wanted.flatten().tolist(),
    )
    return PlainForward(read_weights(auto_class, folder, architecture, options))


def _packed(architecture: str, config: Any, model: Any) -> Forward | None:
    """Takes the model apart where its family is known; else leaves it as it is."""
    family = family_of(architecture, config)
    if family is not None:
        return PackedForward(model, family)
    encoder = encoder_of(architecture, model)
    return None if encoder is None else PackedEncoder(encoder)


def allowed_difference(options: LoadOptions) -> float:
    """By how much two ways of computing one model may differ, by the type of its weights."""
    return _ALIKE.get(options.dtype, _ALIKE_NARROW)


def probes(config: Any) -> list[tuple[int, ...]]:
    """Two sequences with a shared beginning, of tokens from all of the vocabulary."""
    vocabulary = int(config.vocab_size)
    length = min(_PROBE_TOKENS, getattr(config, "max_position_embeddings", None) or _PROBE_TOKENS)
    ids = [(7919 * place + 1) % vocabulary for place in range(length)]
    return [tuple(ids), (*ids[: length // 2], *reversed(ids[length // 2 :]))]
