"""PPO on TRL's `RLOOTrainer`: a value head, generalised advantages, and clipped losses (Schulman et al. 2017; Ouyang et al. 2022).

TRL has no PPO since 1.13. Generation, rewards, reference model, checkpoints and logs are RLOO's; this class replaces what is done
with the rewards. It overrides private methods of TRL 1.16, which is why TRL is pinned to the minor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from trl import RLOOTrainer

from assay_training.compact_head import use_compact_head


@dataclass(frozen=True, kw_only=True)
class PpoTerms:
    """What PPO adds to RLOO's settings."""

    gae_lambda: float = 1.0
    """Decay of the generalised advantage estimate, 0..1. The reward comes at the end of an answer, so that a decay would teach its
    first words least; rewards are not discounted either."""
    value_coefficient: float = 0.5
    """Weight of the value loss."""
    value_scale: float = 10.0
    """The head's output is multiplied by it: Adam then moves values so much faster than the policy, from a head that starts at zero."""
    value_clip: float = 10.0
    """Farthest that a value may move from that of the rollout; wide, as the head starts at zero."""
    reward_mean: float = 0.0
    """Subtracted from the raw score."""
    reward_std: float = 1.0
    """The raw score is divided by it."""


def generalised_advantages(rewards: Tensor, values: Tensor, mask: Tensor, *, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns, without discount.

    Args:
        rewards: reward of each token, [batch, tokens].
        values: value of the state before each token, [batch, tokens].
        mask: 1 where a token is part of the answer; answers are a prefix of their row.
        gae_lambda: 0..1.

    Returns:
        Advantages and returns, each [batch, tokens]; 0 outside the mask.
    """
    values = values * mask
    advantages = torch.zeros_like(values)
    running = torch.zeros_like(values[:, 0])
    for step in reversed(range(values.size(1))):
        after = values[:, step + 1] if step + 1 < values.size(1) else torch.zeros_like(running)
        delta = rewards[:, step] + after - values[:, step]
        running = (delta + gae_lambda * running) * mask[:, step]
        advantages[:, step] = running
    return advantages, (advantages + values) * mask


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the positions of the mask; 0 for an empty one."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def whitened(values: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the mask."""
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


class PpoTrainer(RLOOTrainer):  # type: ignore[misc]
    """PPO; `num_iterations` are the passes over a rollout, `steps_per_generation` the minibatches of a pass."""

    _tag_names = ["assay", "ppo"]
    _name = "PPO"

    def __init__(self, *args: Any, terms: PpoTerms, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.terms = terms
        use_compact_head(self.model, temperature=self.temperature)
        use_compact_head(self.ref_model, temperature=self.temperature)
        hidden_size = self.model.config.get_text_config().hidden_size
        self.model.v_head = nn.Linear(hidden_size, 1, dtype=torch.float32).to(self.model.device)
        nn.init.zeros_(self.model.v_head.weight)
        nn.init.zeros_(self.model.v_head.bias)
        # Within the forward pass, where sharded weights are whole.
        self.model.base_model.register_forward_hook(self._read_values)
        self._reading = False
        self._read: list[Tensor] = []
        self._rollout: dict[str, Tensor] = {}

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes no model card: training.json says where a model comes from."""

    def _read_values(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._reading:
            self._read.append(self.terms.value_scale * self.model.v_head(output.last_hidden_state.float()).squeeze(-1))

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> Any:
        of_policy = model is not self.ref_model
        self._reading, self._read = of_policy, []
        result = super()._get_per_token_logps_and_entropies(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs)
        self._reading = False
        if of_policy:
            # The value of the state before a token is read where the token is predicted: one position earlier.
            self._rollout["values"] = torch.cat(self._read)[:, -(logits_to_keep + 1) : -1]
            self._rollout["log_probs"] = result[0]
        else:
            self._rollout["reference_log_probs"] = result[0]
        self._read = []
        return result

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        raw: Tensor = super()._calculate_rewards(*args, **kwargs)
        rewards = (raw - self.terms.reward_mean) / self.terms.reward_std
        self._metrics["train"]["reward_raw"].append(torch.nanmean(raw).item())
        self._rollout["rewards"] = rewards.nansum(dim=1).masked_fill(torch.isnan(rewards).all(dim=1), torch.nan)
        return rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        mask = batch["completion_mask"].float()
        rollout = self._rollout
        here = slice(self.accelerator.process_index * len(mask), (self.accelerator.process_index + 1) * len(mask))
        scores = rollout["rewards"][here]
        # An answer that the reward service did not score teaches nothing: it is left out of every mean below.
        scored = ~torch.isnan(scores)
        mask = mask * scored.unsqueeze(1)
        log_ratio = (rollout["log_probs"] - rollout["reference_log_probs"]) * mask
        rewards = -self.beta * log_ratio
        last = (mask.sum(1) - 1).clamp(min=0).long()
        rewards[torch.arange(len(mask), device=mask.device), last] += torch.nan_to_num(scores, nan=0.0) * scored
        advantages, returns = generalised_advantages(rewards, rollout["values"], mask, gae_lambda=self.terms.gae_lambda)
        del batch["old_logps"]
        batch.update(
            loss_mask=mask,
            advantages=whitened(advantages, mask),
            returns=returns,
            old_log_probs=rollout["log_probs"],
            old_values=rollout["values"],
        )
        answers = scored.sum().clamp(min=1)
        metrics = self._metrics["train"]
        metrics["kl_per_answer"].append((log_ratio.sum() / answers).item())
        residual = masked_mean((returns - rollout["values"]) ** 2, mask)
        spread = masked_mean((returns - masked_mean(returns, mask)) ** 2, mask)
        metrics["explained_variance"].append((1 - residual / spread.clamp(min=1e-8)).item())
        metrics["scored_share"].append(scored.float().mean().item())
        return batch

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        mask: Tensor = inputs["loss_mask"]
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        log_probs, entropies, _ = self._get_per_token_logps_and_entropies(model, ids, attention, mask.size(1), compute_entropy=True)
        values = self._rollout["values"]

        ratio = torch.exp((log_probs - inputs["old_log_probs"]) * mask)
        clipped_ratio = ratio.clamp(1 - self.epsilon_low, 1 + self.epsilon_high)
        advantages: Tensor = inputs["advantages"]
        policy_loss = masked_mean(torch.max(-advantages * ratio, -advantages * clipped_ratio), mask)

        near = inputs["old_values"] + (values - inputs["old_values"]).clamp(-self.terms.value_clip, self.terms.value_clip)
        value_loss = 0.5 * masked_mean(torch.max((values - inputs["returns"]) ** 2, (near - inputs["returns"]) ** 2), mask)

        metrics = self._metrics["train"]
        metrics["policy_loss"].append(policy_loss.item())
        metrics["value_loss"].append(value_loss.item())
        metrics["entropy"].append(masked_mean(entropies, mask).item())
        metrics["clipped_share"].append(masked_mean((ratio != clipped_ratio).float(), mask).item())
        return policy_loss + self.terms.value_coefficient * value_loss
