"""The sampling loop against plain transformers on the same weights."""

from pathlib import Path

import pytest
import torch
from support.tiny_models import tiny_tokenizer, write_tiny_causal_lm
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from assay_policy.decoding import Chunk, answer_log_probs, decode
from assay_policy.generation import Finish, Sampling
from assay_policy.sampling import noise_of

PROMPTS = [[10, 11, 12], [20, 21, 22, 23, 24, 25, 26], [30]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory):
    return AutoModelForCausalLM.from_pretrained(write_tiny_causal_lm(Path(tmp_path_factory.mktemp("policy")))).eval()


def run(model, sampling: Sampling, *, rows=(0, 1, 2), seed=0, stopped=None, eos=(1,)):
    uniform = None if sampling.temperature == 0 else noise_of(seed, answers=len(rows), tokens=sampling.max_new_tokens)
    chunk = Chunk(prompts=PROMPTS, rows=rows, uniform=uniform)
    return decode(model, chunk, sampling, eos_ids=eos, pad_id=0, stopped=stopped, check=lambda: None)


def plain_log_prob(model, prompt, answer) -> float:
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0]
    log_probs = torch.log_softmax(logits.double(), -1)
    return sum(log_probs[len(prompt) + place - 1, token].item() for place, token in enumerate(answer))


def families():
    vocabulary = len(tiny_tokenizer())
    torch.manual_seed(0)
    yield "gpt2", GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_embd=32, n_layer=2, n_head=4, n_positions=128)).eval()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    yield "sliding window", MistralForCausalLM(MistralConfig(vocab_size=vocabulary, **sizes, sliding_window=8)).eval()


@pytest.mark.parametrize("family", ["llama", "gpt2", "sliding window"])
def test_greedy_answers_are_those_of_transformers_generate(model, family: str):
    model = model if family == "llama" else dict(families())[family]
    for prompt, decoded in zip(PROMPTS, run(model, Sampling(max_new_tokens=20, temperature=0)), strict=True):
        ids = torch.tensor([prompt])
        alone = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20, eos_token_id=1, pad_token_id=0)
        assert list(decoded.token_ids) == alone[0, len(prompt) :].tolist()


@pytest.mark.parametrize("family", ["llama", "gpt2", "sliding window"])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_log_prob_is_that_of_a_plain_forward_at_temperature_one(model, family: str, temperature: float):
    model = model if family == "llama" else dict(families())[family]
    for prompt, decoded in zip(PROMPTS, run(model, Sampling(max_new_tokens=24, temperature=temperature)), strict=True):
        assert decoded.log_prob == pytest.approx(plain_log_prob(model, prompt, decoded.token_ids), abs=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "sliding window"])
def test_log_probs_of_given_answers_are_those_of_a_plain_forward_whatever_they_are_batched_with(model, family: str):
    model = model if family == "llama" else dict(families())[family]
    items = [(PROMPTS[0], [5, 6]), (PROMPTS[1], [7]), (PROMPTS[0], [8, 9, 10, 11, 12, 13, 14, 15, 16]), (PROMPTS[2], [8, 9, 10])]
    expected = [plain_log_prob(model, prompt, answer) for prompt, answer in items]
    assert answer_log_probs(model, items, pad_id=0) == pytest.approx(expected, abs=1e-4)
    assert answer_log_probs(model, items[1:2], pad_id=0) == pytest.approx(expected[1:2], abs=1e-4)


def test_an_answer_that_ends_itself_keeps_its_end_token_and_leaves_the_batch(model):
    free = run(model, Sampling(max_new_tokens=12), rows=[0] * 8 + [1] * 8)
    ends = {free[0].token_ids[3], free[9].token_ids[5]}
    decoded = run(model, Sampling(max_new_tokens=12), rows=[0] * 8 + [1] * 8, eos=tuple(ends))
    for before, after in zip(free, decoded, strict=True):
        places = [place for place, token in enumerate(before.token_ids) if token in ends]
        kept = before.token_ids[: places[0] + 1] if places else before.token_ids
        assert after.token_ids == kept
        assert after.finish is (Finish.STOP if places else Finish.LENGTH)
    assert {len(one.token_ids) for one in decoded} != {12}


def test_no_answer_ends_before_the_least_tokens(model):
    every_token = tuple(range(200))
    decoded = run(model, Sampling(max_new_tokens=12, min_new_tokens=5), rows=[0, 1, 2] * 10, eos=every_token)
    assert min(len(one.token_ids) for one in decoded) == 6
    assert all(token >= 200 for one in decoded for token in one.token_ids[:5])


def test_a_stop_test_ends_an_answer_with_the_token_that_completed_it(model):
    decoded = run(model, Sampling(max_new_tokens=12), stopped=lambda tokens: len(tokens) == 4)
    assert [(len(one.token_ids), one.finish) for one in decoded] == [(4, Finish.STOP)] * 3


def test_what_the_check_raises_ends_the_chunk(model):
    def check() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        decode(
            model,
            Chunk(prompts=PROMPTS, rows=[0], uniform=None),
            Sampling(temperature=0),
            eos_ids=[1],
            pad_id=0,
            stopped=None,
            check=check,
        )
