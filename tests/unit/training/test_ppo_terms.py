from pathlib import Path

import pytest
import torch
from support.tiny_models import write_tiny_causal_lm
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase
from trl.trainer.utils import add_fused_lm_head

from assay_training.compact_head import compact_head_fits, labelled_log_probs, use_compact_head
from assay_training.divergence import measure_kl
from assay_training.ppo_trainer import generalised_advantages, masked_mean, whitened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_causal_lm(tmp_path_factory.mktemp("lm"))


@pytest.fixture
def model(folder: Path) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


def test_with_lambda_one_the_advantage_is_what_is_still_to_come_less_the_value() -> None:
    rewards = torch.tensor([[0.1, 0.2, 1.0], [0.5, 2.0, 0.0]])
    values = torch.tensor([[0.3, 0.1, 0.4], [0.2, 0.6, 9.0]])
    mask = torch.tensor([[1.0, 1, 1], [1, 1, 0]])
    advantages, returns = generalised_advantages(rewards, values, mask, gae_lambda=1.0)
    assert torch.allclose(returns, torch.tensor([[1.3, 1.2, 1.0], [2.5, 2.0, 0.0]]))
    assert torch.allclose(advantages, torch.tensor([[1.0, 1.1, 0.6], [2.3, 1.4, 0.0]]))


def test_with_lambda_zero_the_advantage_is_one_step_of_surprise() -> None:
    rewards, values = torch.tensor([[0.1, 0.2, 1.0]]), torch.tensor([[0.3, 0.1, 0.4]])
    advantages, _ = generalised_advantages(rewards, values, torch.ones(1, 3), gae_lambda=0.0)
    assert torch.allclose(advantages, torch.tensor([[0.1 + 0.1 - 0.3, 0.2 + 0.4 - 0.1, 1.0 - 0.4]]))


def test_whitening_looks_at_the_answers_only() -> None:
    mask = torch.tensor([[1.0, 1, 0], [1, 0, 0]])
    white = whitened(torch.tensor([[1.0, 2, 500], [6, 700, 800]]), mask)
    assert masked_mean(white, mask).item() == pytest.approx(0, abs=1e-6)
    assert masked_mean(white**2, mask).item() == pytest.approx(1, abs=1e-4)
    assert torch.equal(white * (1 - mask), torch.zeros(2, 3))


def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    ids = torch.randint(3, 300, (3, 12))
    attention = torch.ones_like(ids)
    attention[1, :4] = 0
    labels = ids.masked_fill(attention == 0, -100)
    labels[:, :5] = -100
    return {"input_ids": ids, "attention_mask": attention, "labels": labels}


def test_the_compact_head_answers_as_the_fused_head_of_trl_does(model: LlamaForCausalLM, folder: Path) -> None:
    fused = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    outputs = ("log_probs", "entropy", "mean_logits", "is_top1")
    for one in (model, fused):
        add_fused_lm_head(one, temperature=0.7, outputs=outputs)
    use_compact_head(model, temperature=0.7)
    ours, theirs = model(**batch(), fused_lm_head=True), fused(**batch(), fused_lm_head=True)
    for name in ("loss", *outputs):
        assert torch.allclose(getattr(ours, name).float(), getattr(theirs, name).float(), atol=1e-5), name
    ours.log_probs.sum().backward()
    theirs.log_probs.sum().backward()
    for (name, left), right in zip(model.named_parameters(), fused.parameters(), strict=True):
        assert torch.allclose(left.grad, right.grad, atol=1e-4), name


def test_without_being_asked_the_forward_pass_is_the_models_own(model: LlamaForCausalLM) -> None:
    before = model(input_ids=batch()["input_ids"]).logits
    add_fused_lm_head(model)
    use_compact_head(model)
    assert torch.equal(model(input_ids=batch()["input_ids"]).logits, before)


def test_the_mean_of_the_labelled_log_probs_is_the_models_own_loss(model: LlamaForCausalLM) -> None:
    inputs = batch()
    own = model(**inputs).loss
    _, _, log_probs = labelled_log_probs(model, inputs.pop("labels"), **inputs)
    assert -log_probs.mean().item() == pytest.approx(own.item(), abs=1e-5)


def test_a_model_that_scales_its_logits_keeps_trls_head(model: LlamaForCausalLM) -> None:
    assert compact_head_fits(model)
    model.config.final_logit_softcapping = 30.0
    assert not compact_head_fits(model)


PROMPTS = [[{"role": "user", "content": "How do I bake bread?"}], [{"role": "user", "content": "Why?"}]]


def test_a_policy_does_not_diverge_from_itself_and_measuring_leaves_the_random_state(
    model: LlamaForCausalLM, folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    model.train()
    same = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    torch.set_rng_state(state)
    found = measure_kl(model, same, tokenizer, PROMPTS, answers_per_prompt=4, max_new_tokens=6, seed=0)
    assert found["kl"] == pytest.approx(0, abs=1e-5) and found["answers"] == 8
    assert torch.equal(torch.get_rng_state(), state) and model.training


def test_the_divergence_is_that_of_the_first_token_where_answers_have_one(
    model: LlamaForCausalLM, folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    start = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    found = measure_kl(model, start, tokenizer, PROMPTS[:1], answers_per_prompt=4000, max_new_tokens=1, seed=0)
    ids = torch.tensor([tokenizer.apply_chat_template(PROMPTS[0], add_generation_prompt=True, return_dict=False)])
    with torch.no_grad():
        left, right = (one(input_ids=ids).logits[0, -1].log_softmax(-1) for one in (model, start))
    exact = (left.exp() * (left - right)).sum().item()
    assert exact > 0.01
    assert abs(found["kl"] - exact) < 4 * found["standard_error"]
