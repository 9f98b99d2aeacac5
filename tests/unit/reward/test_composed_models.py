"""Multi-head classifiers, implicit rewards and ensembles, held against plain computations."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_models import tiny_tokenizer, write_tiny_causal_lm, write_tiny_reward_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from assay_data.bag_of_words import BagOfWordsModel
from assay_data.conversations import Message
from assay_kit.errors import AssayError, InvalidArgument, NotFound
from assay_reward.inputs import RawText, TextAnswer, TokenAnswer, Tokens, Truncation
from assay_reward.models import LoadOptions, fingerprint_model, load_folder
from assay_reward.models.base import AnyModel, Computed, Prepared

QUESTION = (Message("user", "How do I bake bread?"),)
TEXTS = ["Mix flour, water and salt.", "No.", "", "I would not know \U0001f35e, sorry.\n", "word " * 60]


def answers(texts: list[str] = TEXTS) -> list[TextAnswer]:
    return [TextAnswer(id="", path=f"items[{i}]", field="text", context=QUESTION, text=text) for i, text in enumerate(texts)]


def prepared(model: AnyModel, inputs: list[Any]) -> list[Prepared]:
    values = model.prepare(inputs, Truncation.ERROR)
    assert all(isinstance(value, Prepared) for value in values), values
    return values  # type: ignore[return-value]


def scored(model: Any, texts: list[str] = TEXTS) -> Computed:
    return model.score(prepared(model, answers(texts)))


def declare(folder: Path, name: str, content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(AssayError) as caught:
        load_folder(folder, LoadOptions(**options))
    assert caught.value.violations[0][0] == "uri"
    return caught.value.message


def ids_of(folder: Path, text: str) -> tuple[list[int], int]:
    """Tokens of the whole conversation, and how many of them it has in common with the prompt."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": QUESTION[0].content}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True)["input_ids"]
    whole = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": text}], tokenize=True)["input_ids"]
    border = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
    return whole, border


def plain_log_prob(model: Any, ids: list[int], border: int) -> float:
    with torch.no_grad():
        table = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return sum(float(table[at - 1, ids[at]]) for at in range(border, len(ids)))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("composed")
    write_tiny_causal_lm(folder / "policy", seed=1)
    write_tiny_causal_lm(folder / "reference", seed=2)
    write_tiny_reward_model(folder / "llama", seed=1)
    write_tiny_reward_model(folder / "qwen", seed=2, family="qwen2")
    BagOfWordsModel(vocabulary=("flour", "no"), idf=np.ones(2), weights=np.array([1.0, -2.0]), mean=0.0, std=1.0).save(folder / "words")
    declare(folder / "dpo", "implicit_reward.json", {"policy": "../policy", "reference": "../reference", "beta": 0.25})
    return folder


# Several heads


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_heads_are_weighed_as_declared_and_given_as_members(tmp_path: Path, family: Any) -> None:
    folder = write_tiny_reward_model(tmp_path / "heads", family=family, num_labels=3)
    declare(folder, "reward_heads.json", {"heads": {"helpful": 0.65, "safe": 0.35, "long": -1}})
    computed = scored(load_folder(folder, LoadOptions()))
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for index, text in enumerate(TEXTS):
        with torch.no_grad():
            logits = plain(torch.tensor([ids_of(folder, text)[0]])).logits[0].double().tolist()
        assert [member.name for member in computed.members[index]] == ["helpful", "safe", "long"]
        assert [member.raw for member in computed.members[index]] == pytest.approx(logits, rel=1e-5)
        assert computed.raw[index] == pytest.approx(0.65 * logits[0] + 0.35 * logits[1] - logits[2], rel=1e-5, abs=1e-6)


def test_heads_go_by_the_names_of_the_labels_where_the_configuration_has_them(tmp_path: Path) -> None:
    folder = write_tiny_reward_model(tmp_path / "named", num_labels=2)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "safe", "1": "helpful"}
    config["label2id"] = {"safe": 0, "helpful": 1}
    (folder / "config.json").write_text(json.dumps(config))
    declare(folder, "reward_heads.json", {"heads": {"helpful": 1, "safe": 0}})
    computed = scored(load_folder(folder, LoadOptions()), ["No."])
    with torch.no_grad():
        logits = AutoModelForSequenceClassification.from_pretrained(folder).eval()(torch.tensor([ids_of(folder, "No.")[0]])).logits[0]
    assert computed.raw[0] == pytest.approx(float(logits[1]), rel=1e-5)
    declare(folder, "reward_heads.json", {"heads": {"helpful": 1, "harmless": 0}})
    assert "the labels safe, helpful" in refusal(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"heads": {"a": 1.0}}, "2 labels"),
        ({"heads": {"a": 0, "b": 0}}, "weighs 0"),
        ({"heads": {"a": "much", "b": 1}}, "heads.a"),
        ({"head": {"a": 1, "b": 1}}, "heads: Field required"),
        ("{", "Invalid JSON"),
        ('{"heads": {"a": NaN, "b": 1}}', "heads.a"),
    ],
)
def test_heads_that_do_not_fit_are_refused(tmp_path: Path, content: Any, said: str) -> None:
    folder = write_tiny_reward_model(tmp_path / "heads", num_labels=2)
    assert said in refusal(declare(folder, "reward_heads.json", content))


def test_other_weights_of_heads_are_another_model(tmp_path: Path) -> None:
    folder = write_tiny_reward_model(tmp_path / "heads", num_labels=2)
    one = fingerprint_model(declare(folder, "reward_heads.json", {"heads": {"a": 1, "b": 2}}), LoadOptions())
    assert one == fingerprint_model(declare(folder, "reward_heads.json", '{"heads":\n {"a": 1.0, "b": 2.0}}'), LoadOptions())
    other = fingerprint_model(declare(folder, "reward_heads.json", {"heads": {"a": 1, "b": 3}}), LoadOptions())
    assert one.fingerprint != other.fingerprint and one.tokenizer_sha256 == other.tokenizer_sha256


# Implicit rewards


@pytest.mark.parametrize("length_normalised", [False, True])
def test_an_implicit_reward_is_the_log_ratio_of_plain_forwards(home: Path, tmp_path: Path, length_normalised: bool) -> None:
    declared = {"policy": str(home / "policy"), "reference": str(home / "reference"), "beta": 0.1, "length_normalised": length_normalised}
    model = load_folder(declare(tmp_path / "dpo", "implicit_reward.json", declared), LoadOptions())
    computed = scored(model)
    policy, reference = (AutoModelForCausalLM.from_pretrained(home / name).eval() for name in ("policy", "reference"))
    for index, text in enumerate(TEXTS):
        ids, border = ids_of(home / "policy", text)
        ours = plain_log_prob(policy, ids, border), plain_log_prob(reference, ids, border)
        assert [(member.name, member.raw) for member in computed.members[index]] == [
            ("policy_log_prob", pytest.approx(ours[0], rel=1e-5)),
            ("reference_log_prob", pytest.approx(ours[1], rel=1e-5)),
        ]
        expected = 0.1 * (ours[0] - ours[1]) / (len(ids) - border if length_normalised else 1)
        assert computed.raw[index] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert computed.std == ()


def test_an_implicit_reward_has_the_same_bits_alone_and_in_company(home: Path) -> None:
    model = load_folder(home / "dpo", LoadOptions())
    together = scored(model).raw
    assert together == tuple(scored(model, [text]).raw[0] for text in TEXTS)
    assert together == scored(model, TEXTS[::-1]).raw[::-1]


def test_a_long_response_is_summed_over_chunks(home: Path) -> None:
    model = load_folder(home / "dpo", LoadOptions())
    text = "flour and salt, " * 100
    ids, border = ids_of(home / "policy", text)
    assert len(ids) - border > 300
    policy = AutoModelForCausalLM.from_pretrained(home / "policy").eval()
    assert scored(model, [text]).members[0][0].raw == pytest.approx(plain_log_prob(policy, ids, border), rel=1e-5)


def test_a_policy_that_caps_its_logits_is_scored_as_it_computes_them(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    for seed, name in enumerate(("policy", "reference")):
        torch.manual_seed(seed)
        config = Gemma2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            final_logit_softcapping=0.05,
            initializer_range=1.0,
            attn_implementation="eager",
        )
        Gemma2ForCausalLM(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    declare(tmp_path / "dpo", "implicit_reward.json", {"policy": "../policy", "reference": "../reference", "beta": 1})
    computed = scored(load_folder(tmp_path / "dpo", LoadOptions()), TEXTS[:1])
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "policy").eval()
    assert computed.members[0][0].raw == pytest.approx(plain_log_prob(plain, *ids_of(tmp_path / "policy", TEXTS[0])), rel=1e-4)


def test_tokens_are_scored_where_the_prompt_is_told_apart(home: Path) -> None:
    model = load_folder(home / "dpo", LoadOptions())
    ids, border = ids_of(home / "policy", TEXTS[0])
    whole = Tokens(id="", path="", field="tokens", context_ids=tuple(ids[:border]), ids=tuple(ids[border:]))
    answer = TokenAnswer(id="", path="", field="tokens", context=QUESTION, ids=tuple(ids[border:]))
    raw = model.score(prepared(model, [whole, answer])).raw  # type: ignore[union-attr]
    assert raw[0] == raw[1] == scored(model, TEXTS[:1]).raw[0]


@pytest.mark.parametrize(
    "item",
    [
        RawText(id="", path="", field="raw_text", text="Human: hello"),
        Tokens(id="", path="", field="tokens", context_ids=(), ids=(5, 6, 7)),
        TextAnswer(id="", path="", field="conversation", context=(), text="an answer to nothing"),
        Tokens(id="", path="", field="tokens", context_ids=(5, 6), ids=()),
    ],
)
def test_what_has_no_prompt_or_no_response_has_no_implicit_reward(home: Path, item: Any) -> None:
    (error,) = load_folder(home / "dpo", LoadOptions()).prepare([item], Truncation.ERROR)
    assert isinstance(error, InvalidArgument) and error.violations[0][0] == item.field


def test_a_policy_with_another_tokenizer_than_its_reference_is_refused(home: Path, tmp_path: Path) -> None:
    other = write_tiny_causal_lm(tmp_path / "other", seed=2)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-1]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    declared = {"policy": str(home / "policy"), "reference": str(other), "beta": 0.1}
    assert "different tokenizers" in refusal(declare(tmp_path / "dpo", "implicit_reward.json", declared))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"beta": 0}, "beta: Input should be greater than 0"),
        ({"policy": "../nowhere"}, "policy:"),
        ({"reference": "../llama"}, "reference: the architecture"),
        ({"temperature": 1}, "temperature: Extra inputs"),
    ],
)
def test_an_implicit_reward_that_does_not_fit_is_refused(home: Path, tmp_path: Path, change: Any, said: str) -> None:
    declared = {"policy": "../policy", "reference": "../reference", "beta": 0.1, **change}
    assert said in refusal(declare(home / tmp_path.name, "implicit_reward.json", declared))


def test_an_implicit_reward_is_another_model_when_anything_of_it_changes(tmp_path: Path) -> None:
    for name in ("policy", "reference", "changed"):
        write_tiny_causal_lm(tmp_path / name, seed=len(name))
    declared = {"policy": "../policy", "reference": "../reference", "beta": 0.1}
    found = {
        fingerprint_model(declare(tmp_path / f"m{index}", "implicit_reward.json", {**declared, **change}), LoadOptions()).fingerprint
        for index, change in enumerate(
            ({}, {"beta": 0.2}, {"length_normalised": True}, {"reference": "../changed"}, {"policy": "../changed"})
        )
    }
    assert len(found) == 5
    moved = declare(
        tmp_path / "deep" / "moved",
        "implicit_reward.json",
        {**declared, "policy": str(tmp_path / "policy"), "reference": "../../reference"},
    )
    assert fingerprint_model(moved, LoadOptions()).fingerprint in found


# Ensembles


def three(folder: Path, home: Path, **weights: float) -> Path:
    names = {"a": "llama", "b": "qwen", "c": "words"}
    members = [{"name": name, "uri": str(home / there), "weight": weights.get(name, 1.0)} for name, there in names.items()]
    return declare(folder, "ensemble.json", {"members": members})


def test_an_ensemble_is_the_weighted_mean_of_its_members_with_their_spread(home: Path, tmp_path: Path) -> None:
    ensemble = load_folder(three(tmp_path / "e", home, a=3.0, b=0.5), LoadOptions())
    computed = scored(ensemble)
    parts = [scored(load_folder(home / name, LoadOptions())).raw for name in ("llama", "qwen", "words")]
    for index in range(len(TEXTS)):
        values = [part[index] for part in parts]
        assert [(member.name, member.raw) for member in computed.members[index]] == list(zip("abc", values, strict=True))
        assert computed.raw[index] == pytest.approx(np.average(values, weights=[3.0, 0.5, 1.0]), rel=1e-12)
        assert computed.std[index] == pytest.approx(np.std(values, ddof=1), rel=1e-12)


def test_an_ensemble_of_one_has_its_members_score_and_no_spread(home: Path, tmp_path: Path) -> None:
    folder = declare(tmp_path / "one", "ensemble.json", {"members": [{"name": "only", "uri": str(home / "dpo"), "weight": 7}]})
    computed = scored(load_folder(folder, LoadOptions()))
    assert computed.raw == pytest.approx(scored(load_folder(home / "dpo", LoadOptions())).raw, rel=1e-12)
    assert set(computed.std) == {None}


def test_ensembles_nest_and_members_with_different_tokenizers_each_use_their_own(home: Path, tmp_path: Path) -> None:
    other = write_tiny_reward_model(tmp_path / "other", seed=5, tokenizer=tiny_tokenizer(max_length=300))
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = []
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    three(tmp_path / "inner", home)
    folder = declare(
        tmp_path / "outer", "ensemble.json", {"members": [{"name": "i", "uri": "../inner"}, {"name": "o", "uri": str(other), "weight": 2}]}
    )
    ensemble = load_folder(folder, LoadOptions())
    computed = scored(ensemble, TEXTS[:3])
    inner, alone = scored(load_folder(tmp_path / "inner", LoadOptions()), TEXTS[:3]), scored(load_folder(other, LoadOptions()), TEXTS[:3])
    for index in range(3):
        assert computed.raw[index] == pytest.approx((inner.raw[index] + 2 * alone.raw[index]) / 3, rel=1e-12)
    assert ensemble.max_input_tokens == 300
    assert computed.computed_tokens == inner.computed_tokens + alone.computed_tokens


def test_an_input_that_a_member_cannot_score_has_that_members_error(home: Path, tmp_path: Path) -> None:
    ensemble = load_folder(three(tmp_path / "e", home), LoadOptions())
    item = Tokens(id="", path="", field="tokens", context_ids=(5,), ids=(6,))
    (error,) = ensemble.prepare([item], Truncation.ERROR)
    assert isinstance(error, InvalidArgument) and error.violations[0][0] == "tokens" and "member c" in error.violations[0][1]


def test_a_changed_member_is_a_changed_ensemble(tmp_path: Path) -> None:
    for name in "ab":
        write_tiny_reward_model(tmp_path / name, seed=ord(name))
    folder = declare(tmp_path / "e", "ensemble.json", {"members": [{"name": name, "uri": f"../{name}"} for name in "ab"]})
    before = fingerprint_model(folder, LoadOptions())
    weights = load_file(tmp_path / "b" / "model.safetensors")
    weights["score.weight"] = weights["score.weight"] + 1e-3
    save_file(weights, tmp_path / "b" / "model.safetensors", metadata={"format": "pt"})
    after = fingerprint_model(folder, LoadOptions())
    assert before.fingerprint != after.fingerprint and before.tokenizer_sha256 == after.tokenizer_sha256


def test_a_member_that_is_missing_is_named(home: Path, tmp_path: Path) -> None:
    folder = declare(
        tmp_path / "e", "ensemble.json", {"members": [{"name": "a", "uri": str(home / "llama")}, {"name": "b", "uri": "./gone"}]}
    )
    with pytest.raises(NotFound) as caught:
        load_folder(folder, LoadOptions())
    assert caught.value.violations[0][0] == "uri" and "members[1]" in caught.value.violations[0][1]


def test_an_ensemble_that_holds_itself_is_refused(tmp_path: Path) -> None:
    declare(tmp_path / "a", "ensemble.json", {"members": [{"name": "b", "uri": "../b"}]})
    declare(tmp_path / "b", "ensemble.json", {"members": [{"name": "a", "uri": "../a"}]})
    assert "holds itself" in refusal(tmp_path / "a")
    with pytest.raises(InvalidArgument, match="holds itself"):
        fingerprint_model(tmp_path / "a", LoadOptions())


def test_ensembles_nested_too_deep_are_refused(home: Path, tmp_path: Path) -> None:
    below = str(home / "words")
    for level in range(5):
        folder = declare(tmp_path / str(level), "ensemble.json", {"members": [{"name": "m", "uri": below}]})
        below = str(folder)
    assert "nested" in refusal(folder)
    load_folder(tmp_path / "3", LoadOptions())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"members": []}, "members"),
        ({"members": [{"name": "a", "uri": "x"}, {"name": "a", "uri": "y"}]}, "same name"),
        ({"members": [{"name": "a", "uri": "x", "weight": 0}]}, "members.0.weight"),
        ({"members": [{"uri": "x"}]}, "members.0.name"),
    ],
)
def test_an_ensemble_that_does_not_fit_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    assert said in refusal(declare(tmp_path / "e", "ensemble.json", content))
