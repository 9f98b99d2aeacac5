"""Log-probabilities of the tokens that count, and of no others.

TRL's fused head scores every position outside of Triton devices, in chunks that are computed again in the backward pass. On
a CPU the small models of tests and demos spend most of their time there; this head projects only the labelled positions.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

_SCALED = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")


def compact_head_fits(model: PreTrainedModel) -> bool:
    """Whether the compact head is right for a model: it is on a CPU, its logits are the head's own, and no experts are routed."""
    config = model.config.get_text_config()
    scaled = any(getattr(config, name, None) is not None for name in _SCALED)
    return model.device.type == "cpu" and not scaled and not getattr(config, "output_router_logits", False)


def labelled_log_probs(model: PreTrainedModel, labels: Tensor, *, temperature: float = 1.0, **inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Runs the backbone, and the head on the positions whose next token is labelled.

    Args:
        model: a causal LM.
        labels: ids [batch, tokens]; -100 where a token does not count.
        temperature: the logits are divided by it.
        inputs: what the backbone takes.

    Returns:
        mask [batch, tokens - 1] of the positions that count, their logits [n, vocabulary] and log-probabilities [n].
    """
    inputs["use_cache"] = False
    hidden = model.base_model(**inputs).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    mask = targets != -100
    logits = model.get_output_embeddings()(hidden[mask])
    if temperature != 1.0:
        logits = logits / temperature
    log_probs = -torch.nn.functional.cross_entropy(logits.float(), targets[mask], reduction="none")
    return mask, logits, log_probs


def use_compact_head(model: PreTrainedModel, *, temperature: float = 1.0) -> None:
    """Lets ``model(..., labels=labels, fused_lm_head=True)`` answer as TRL's fused head does, by way of the compact head.

    To be called after the TRL trainer has patched the model; the forward without ``fused_lm_head`` stays as it is, and so does
    the whole where the compact head does not fit.
    """
    if not compact_head_fits(model):
        return
    forward_before = model.forward

    def forward(self: PreTrainedModel, *args: Any, fused_lm_head: bool = False, labels: Tensor | None = None, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None:
            return forward_before(*args, labels=labels, **kwargs) if labels is not None else forward_before(*args, **kwargs)
        mask, logits, log_probs = labelled_log_probs(self, labels, temperature=temperature, **kwargs)
        with torch.no_grad():
            detached = logits.float()
            probabilities = detached.softmax(-1)
            entropy = torch.logsumexp(detached, -1) - (probabilities * detached).sum(-1)
            is_top1 = detached.argmax(-1) == labels[:, 1:][mask]
            mean_logits = detached.mean(-1)
        return FusedCausalLMOutput(
            loss=-log_probs.sum() / mask.sum().clamp(min=1),
            log_probs=_spread(mask, log_probs),
            entropy=_spread(mask, entropy),
            log_sum_sq_probs=None,
            mean_logits=_spread(mask, mean_logits),
            is_top1=_spread(mask, is_top1),
            label_mask=mask,
            aux_loss=None,
        )

    model.forward = types.MethodType(forward, model)


def _spread(mask: Tensor, values: Tensor) -> Tensor:
    return values.new_zeros(mask.shape).masked_scatter(mask, values)
