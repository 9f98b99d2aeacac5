"""Reads a language model's weights and settles how it is computed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from assay_kit.errors import InvalidArgument
from assay_reward.models.base import LoadOptions
from assay_reward.models.checkpoints import architecture_of, read_config, read_weights
from assay_reward.models.log_probs import LogProbs, PlainLogProbs, Response
from assay_reward.models.packed.families import Family, family_of
from assay_reward.models.packed.log_probs import PackedLogProbs
from assay_reward.models.read_forward import allowed_difference, probes

_ALIKE = 1e-3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A causal language model in memory, that tells how likely a response is."""

    config: Any
    """Of its text."""
    architecture: str
    log_probs: LogProbs


def read_language_model(folder: Path, options: LoadOptions) -> LanguageModel:
    """The language model in a folder: packed where its family is known and gives what its own forward gives; else that.

    Raises:
        InvalidArgument: field `uri`; it is no whole causal language model, or makes its logits in a way that is not known here.
    """
    config = read_config(folder)
    architecture = architecture_of(config)
    if not architecture.endswith("ForCausalLM"):
        raise InvalidArgument("uri", f"the architecture in {folder} is {architecture}; one that ends with ForCausalLM is wanted")
    model = read_weights(AutoModelForCausalLM, folder, architecture, options)
    _check_head(model, architecture)
    family = family_of(architecture, config)
    return LanguageModel(
        config=config.get_text_config(),
        architecture=architecture,
        log_probs=PlainLogProbs(model) if family is None else _packed(model, family, folder, options),
    )


def _check_head(model: Any, architecture: str) -> None:
    """Holds what is known here of heads against the model's own logits.

    Raises:
        InvalidArgument: field `uri`; they differ.
    """
    ids = list(range(min(8, model.config.get_text_config().vocab_size)))
    with torch.inference_mode():
        plain = model(input_ids=torch.tensor([ids], device=model.device)).logits[0, :-1].float().log_softmax(-1)
    expected = float(plain[torch.arange(len(ids) - 1), ids[1:]].sum())
    [found] = PlainLogProbs(model).likelihoods([Response(tuple(ids), 1)]).sums
    if not abs(found - expected) <= _ALIKE * abs(expected):
        raise InvalidArgument(
            "uri", f"{architecture} makes its logits in a way that is not known here: {found} where its own forward gives {expected}"
        )


def _packed(model: Any, family: Family, folder: Path, options: LoadOptions) -> LogProbs:
    """The packed forward, for which the model is taken apart; its own where a probe comes out otherwise."""
    asked = [Response(ids, len(ids) // 2) for ids in probes(model.config)]
    wanted = PlainLogProbs(model).likelihoods(asked).sums
    packed = PackedLogProbs(model, family)
    found = packed.likelihoods(asked).sums
    allowed = allowed_difference(options)
    if all(abs(one - other) <= allowed * len(probe.ids) for one, other, probe in zip(found, wanted, asked, strict=True)):
        return packed
    architecture = architecture_of(model.config)
    _log.warning(
        "%s in %s is computed by its own forward, slowly: the packed one gives %s for a probe where that gives %s",
        architecture,
        folder,
        found,
        wanted,
    )
    return PlainLogProbs(read_weights(AutoModelForCausalLM, folder, architecture, options))
