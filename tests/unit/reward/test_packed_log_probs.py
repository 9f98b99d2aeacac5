"""Implicit rewards on the packed forward, held against plain transformers, with what responses share computed once."""

import json
import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_classifiers import write_language_model
from support.tiny_models import tiny_tokenizer
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from assay_reward.models import LoadOptions, load_folder
from assay_reward.models.base import Computed, Prepared
from assay_reward.models.implicit_reward import ImplicitReward
from assay_reward.models.log_probs import PlainLogProbs, Response
from assay_reward.models.packed.families import FAMILIES
from assay_reward.models.packed.heads import VocabularyHead
from assay_reward.models.packed.linears import Linear, Weights, plain
from assay_reward.models.packed.log_probs import PackedLogProbs

BETA = 0.5
NAMES = ["llama", "llama_one_layer", "mistral_window", "qwen2", "qwen2_window", "qwen3", "gemma2", "gemma3"]


def ids(count: int, seed: int) -> tuple[int, ...]:
    chosen = random.Random(seed)
    return tuple(chosen.randrange(3, 380) for _ in range(count))


PROMPT = ids(60, 1)
OPENING = PROMPT + ids(30, 2)
RESPONSES = [
    Response(PROMPT + ids(40, 3), 60),
    Response(PROMPT + ids(1, 4), 60),
    Response(OPENING + ids(20, 5), 60),
    Response(OPENING + ids(25, 6), 60),
    Response(OPENING + ids(25, 6), 75),
    Response(OPENING, 60),
    Response((*OPENING[:-1], 7), 60),
    Response(ids(2, 8), 1),
    Response(ids(700, 9), 300),
]


def scored(model: ImplicitReward, responses: list[Response]) -> Computed:
    return model.score(items(responses))


def items(responses: list[Response]) -> list[Prepared]:
    return [Prepared(ids=one.ids, prompt_tokens=one.prompt_tokens, response_tokens=len(one.ids) - one.prompt_tokens) for one in responses]


def plain_log_prob(model: LlamaForCausalLM, response: Response) -> float:
    with torch.no_grad():
        table = model(torch.tensor([response.ids])).logits[0].double().log_softmax(-1)
    return sum(float(table[at - 1, response.ids[at]]) for at in range(response.prompt_tokens, len(response.ids)))


def pair(folder: Path, name: str, **changes: object) -> Path:
    for seed, part in enumerate(("policy", "reference")):
        write_language_model(folder / part, name, seed, **changes)
    (folder / "implicit_reward.json").write_text(json.dumps({"policy": "./policy", "reference": "./reference", "beta": BETA}))
    return folder


def loaded(folder: Path, **options: str) -> ImplicitReward:
    model = load_folder(folder, LoadOptions(**options))
    assert isinstance(model, ImplicitReward)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_log_probabilities_are_those_of_the_familys_own_forward(tmp_path: Path, name: str) -> None:
    changes = {"gemma2": {"final_logit_softcapping": 1.5}, "qwen2": {"tie_word_embeddings": True}}.get(name, {})
    folder = pair(tmp_path, name, **changes)
    model = loaded(folder)
    assert isinstance(model._policy, PackedLogProbs) and isinstance(model._reference, PackedLogProbs)
    found = scored(model, RESPONSES)
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(folder / part, dtype=torch.float32).eval() for part in ("policy", "reference")
    )
    for response, members, raw in zip(RESPONSES, found.members, found.raw, strict=True):
        wanted = [plain_log_prob(model, response) for model in (policy, reference)]
        assert [member.raw for member in members] == pytest.approx(wanted, rel=1e-5)
        assert raw == pytest.approx(BETA * (wanted[0] - wanted[1]), rel=1e-4, abs=1e-4)


def test_an_implicit_reward_is_the_same_alone_and_in_any_company(tmp_path: Path) -> None:
    model = loaded(pair(tmp_path, "llama"))
    alone = {one: scored(model, [one]).raw[0] for one in RESPONSES}
    for seed in range(4):
        some = random.Random(seed).sample(RESPONSES, 6)
        assert list(scored(model, some).raw) == pytest.approx([alone[one] for one in some], rel=1e-5, abs=1e-5)


def test_a_group_computes_its_prompt_once_in_each_model_and_no_last_tokens(tmp_path: Path) -> None:
    model = loaded(pair(tmp_path, "llama"))
    group = [Response(ids(400, 20) + ids(50, 21 + index), 400) for index in range(16)]
    wanted = 2 * (400 + 16 * 49)
    for batch in (group, [*reversed(group)], [*group, group[3]]):
        assert scored(model, batch).computed_tokens == model.cost(items(batch)) == wanted
    assert model.cost([]) == 0 and scored(model, []).raw == ()


def test_a_response_of_one_token_to_a_shared_prompt_adds_no_token(tmp_path: Path) -> None:
    model = loaded(pair(tmp_path, "llama"))
    verdicts = [Response((*ids(100, 30), token), 100) for token in (5, 6, 7)]
    found = scored(model, verdicts)
    assert found.computed_tokens == 2 * 100
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "policy").eval()
    assert [members[0].raw for members in found.members] == pytest.approx([plain_log_prob(policy, one) for one in verdicts], rel=1e-5)


def test_logits_are_made_for_a_block_of_positions_at_a_time() -> None:
    torch.manual_seed(0)
    vocabulary = 2**20
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **sizes)).eval()
    seen: list[int] = []

    def counted(weights: Weights) -> Linear:
        linear = plain(weights)

        def run(rows: torch.Tensor) -> torch.Tensor:
            seen.append(len(rows))
            return linear(rows)

        return run

    rows, tokens = np.array([3, 40, 3, 79]), np.array([1, 2, vocabulary - 1, 0])
    hidden = torch.randn(80, 8)
    found = VocabularyHead(model, counted).log_probs(hidden, rows, tokens)
    assert seen == [32, 32, 16]
    with torch.no_grad():
        wanted = model.lm_head(hidden[rows]).log_softmax(-1)[range(4), tokens]
    assert list(found) == pytest.approx(wanted.tolist(), rel=1e-5)


def test_bfloat16_is_near(tmp_path: Path) -> None:
    folder = pair(tmp_path, "llama")
    narrow = loaded(folder, dtype="bfloat16")
    assert isinstance(narrow._policy, PackedLogProbs)
    found, wanted = scored(narrow, RESPONSES), scored(loaded(folder), RESPONSES)
    for response, some, others in zip(RESPONSES, found.members, wanted.members, strict=True):
        tokens = len(response.ids) - response.prompt_tokens
        assert [one.raw / tokens for one in some] == pytest.approx([one.raw / tokens for one in others], abs=0.2)


def test_a_family_that_is_not_known_is_computed_by_its_own_forward(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    for seed, part in enumerate(("policy", "reference")):
        torch.manual_seed(seed)
        GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=512)).save_pretrained(
            tmp_path / part
        )
        config = json.loads((tmp_path / part / "config.json").read_text())
        # A name that ends as language models' do, of a class that is GPT-2's.
        (tmp_path / part / "config.json").write_text(json.dumps({**config, "architectures": ["GPT2ForCausalLM"]}))
        tokenizer.save_pretrained(tmp_path / part)
    (tmp_path / "implicit_reward.json").write_text(json.dumps({"policy": "./policy", "reference": "./reference", "beta": BETA}))
    model = loaded(tmp_path)
    assert isinstance(model._policy, PlainLogProbs)
    some = RESPONSES[:4]
    found = scored(model, [*some, some[0]])
    assert found.computed_tokens == model.cost(items(some)) == 2 * sum(len(one.ids) - 1 for one in some)
    policy = AutoModelForCausalLM.from_pretrained(tmp_path / "policy").eval()
    assert [members[0].raw for members in found.members[:4]] == pytest.approx([plain_log_prob(policy, one) for one in some], rel=1e-5)


def test_a_packed_forward_that_would_give_something_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = pair(tmp_path, "mistral_window")
    wrong = next(family for family in FAMILIES if "LlamaForCausalLM" in family.architectures)
    monkeypatch.setattr("assay_reward.models.read_log_probs.family_of", lambda architecture, config: wrong)
    with caplog.at_level(logging.WARNING):
        model = loaded(folder)
    assert isinstance(model._policy, PlainLogProbs) and "slowly" in caplog.text
