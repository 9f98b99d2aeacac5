import json
import random
from pathlib import Path

import pytest
import torch
from support.tiny_models import BOS, EOS, tiny_tokenizer, write_tiny_causal_lm, write_tiny_reward_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from assay_data.conversations import Message
from assay_kit.errors import AssayError, FailedPrecondition, InvalidArgument
from assay_reward.inputs import RawText, ScoreInput, TextAnswer, TokenAnswer, Tokens, Truncation
from assay_reward.models import LoadOptions, load_folder
from assay_reward.models.base import Prepared, RewardModel

QUESTION = (Message("user", "How do I bake bread?"),)
ANSWERS = [
    "",
    " ",
    "\n\n",
    " leading and trailing  ",
    "Mix flour and water.",
    "Mix flour and water, let it rise, and bake it." * 4,
    "é, ü, 漢字, 🙂\u200d🙂, \u2028",
    "Mix flour and water!",
]


def answers(*texts: str, context: tuple[Message, ...] = QUESTION) -> list[ScoreInput]:
    return [TextAnswer(id=str(index), path="", field="text", context=context, text=text) for index, text in enumerate(texts)]


def prepared(model: RewardModel, inputs: list[ScoreInput], truncation: Truncation = Truncation.ERROR) -> list[Prepared]:
    ready = []
    for item in model.prepare(inputs, truncation):
        if isinstance(item, AssayError):
            raise item
        ready.append(item)
    return ready


def scores(model: RewardModel, *texts: str) -> list[float]:
    return list(model.score(prepared(model, answers(*texts))).raw)


def plain_scores(folder: Path, *texts: str) -> list[float]:
    """What anyone gets from transformers, a sequence at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for text in texts:
        turns = [{"role": "user", "content": QUESTION[0].content}, {"role": "assistant", "content": text}]
        inputs = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True, return_tensors="pt")
        with torch.no_grad():
            found.append(model(**inputs).logits[0, 0].item())
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_reward_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def model(folder: Path) -> RewardModel:
    return load_folder(folder, LoadOptions())


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "bert"])
def test_scores_are_those_of_plain_transformers(tmp_path: Path, family: str) -> None:
    folder = write_tiny_reward_model(tmp_path / family, seed=3, family=family)
    model = load_folder(folder, LoadOptions())
    assert scores(model, *ANSWERS) == pytest.approx(plain_scores(folder, *ANSWERS), rel=1e-5, abs=1e-5)
    assert len({round(score, 4) for score in scores(model, *ANSWERS)}) > 3


def test_a_score_is_the_same_alone_in_a_group_and_in_any_order(model: RewardModel) -> None:
    alone = {text: scores(model, text)[0] for text in ANSWERS}
    shuffled = list(ANSWERS)
    for seed in range(5):
        random.Random(seed).shuffle(shuffled)
        assert scores(model, *shuffled) == pytest.approx([alone[text] for text in shuffled], rel=1e-5)


@pytest.mark.parametrize("pad_token", ["<|pad|>", EOS])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_side_and_pad_that_is_eos_do_not_move_a_score(tmp_path: Path, pad_token: str, side: str) -> None:
    tokenizer = tiny_tokenizer(pad_token=pad_token, padding_side=side)
    folder = write_tiny_reward_model(tmp_path / "model", tokenizer=tokenizer)
    model = load_folder(folder, LoadOptions())
    assert scores(model, *ANSWERS) == pytest.approx(plain_scores(folder, *ANSWERS), rel=1e-5, abs=1e-5)


def test_a_model_without_a_padding_id_is_read_at_the_last_token(tmp_path: Path) -> None:
    folder = write_tiny_reward_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    model = load_folder(folder, LoadOptions())
    assert scores(model, *ANSWERS) == pytest.approx(plain_scores(folder, *ANSWERS), rel=1e-5, abs=1e-5)


def test_an_answer_keeps_its_whitespace(model: RewardModel) -> None:
    assert len(set(scores(model, "yes", " yes", "yes ", "yes\n"))) == 4


def test_prompt_and_response_tokens_add_up_to_the_whole(model: RewardModel, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = tokenizer("\n\nHuman: How do I bake bread?\n\nAssistant: Mix it." + EOS, add_special_tokens=False)["input_ids"]
    [item] = prepared(model, answers("Mix it."))
    assert list(item.ids) == whole
    assert tokenizer.decode(item.ids[: item.prompt_tokens]) == "\n\nHuman: How do I bake bread?\n\nAssistant:"
    assert tokenizer.decode(item.ids[item.prompt_tokens :]) == " Mix it." + EOS


def test_an_answer_as_tokens_scores_as_the_same_answer_as_text(model: RewardModel, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tuple(tokenizer(" Mix it." + EOS, add_special_tokens=False)["input_ids"])
    context_ids = tuple(tokenizer("\n\nHuman: How do I bake bread?\n\nAssistant:", add_special_tokens=False)["input_ids"])
    inputs: list[ScoreInput] = [
        *answers("Mix it."),
        TokenAnswer(id="", path="", field="tokens", context=QUESTION, ids=ids),
        Tokens(id="", path="", field="tokens", context_ids=context_ids, ids=ids),
        Tokens(id="", path="", field="tokens", context_ids=(), ids=context_ids + ids),
        RawText(id="", path="", field="raw_text", text="\n\nHuman: How do I bake bread?\n\nAssistant: Mix it." + EOS),
    ]
    assert len(set(model.score(prepared(model, inputs)).raw)) == 1


def test_too_long_is_refused_unless_a_policy_is_named(model: RewardModel) -> None:
    [error] = model.prepare(answers("word " * 600), Truncation.ERROR)
    assert isinstance(error, InvalidArgument)
    assert error.violations[0][0] == "text"
    assert "512" in error.message and "PROMPT_LEFT" in error.message


def test_prompt_left_drops_the_oldest_prompt_tokens_and_keeps_the_response(model: RewardModel) -> None:
    context = (Message("user", "old " * 600),)
    [whole] = prepared(model, answers("Mix flour.", context=(Message("user", "old " * 20),)))
    [cut] = prepared(model, answers("Mix flour.", context=context), Truncation.PROMPT_LEFT)
    assert len(cut.ids) == cut.tokens == model.max_input_tokens == 512
    assert cut.response_tokens == whole.response_tokens
    assert cut.ids[-cut.response_tokens :] == whole.ids[-whole.response_tokens :]
    assert cut.tokens_dropped > 0


def test_prompt_left_keeps_a_leading_bos(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    model = load_folder(write_tiny_reward_model(tmp_path / "model", tokenizer=tokenizer), LoadOptions())
    [cut] = prepared(model, answers("Mix.", context=(Message("user", "old " * 600),)), Truncation.PROMPT_LEFT)
    assert cut.ids[0] == tokenizer.bos_token_id
    assert cut.tokens == 512
    assert cut.ids[1:].count(tokenizer.bos_token_id) == 0


def test_response_right_drops_the_tail_of_the_response(model: RewardModel) -> None:
    [short] = prepared(model, answers("word " * 20))
    [cut] = prepared(model, answers("word " * 600), Truncation.RESPONSE_RIGHT)
    assert cut.prompt_tokens == short.prompt_tokens
    assert cut.ids[: short.tokens - 3] == short.ids[:-3]
    assert cut.tokens == 512 and cut.tokens_dropped > 0


@pytest.mark.parametrize(
    ("truncation", "context", "text"),
    [(Truncation.PROMPT_LEFT, "old", "word " * 600), (Truncation.RESPONSE_RIGHT, "old " * 600, "word")],
)
def test_what_a_policy_may_not_shorten_is_refused(model: RewardModel, truncation: Truncation, context: str, text: str) -> None:
    [error] = model.prepare(answers(text, context=(Message("user", context),)), truncation)
    assert isinstance(error, InvalidArgument) and "may not shorten" in error.message


def test_one_bad_input_does_not_touch_its_neighbours(model: RewardModel) -> None:
    inputs: list[ScoreInput] = [*answers("good"), Tokens(id="", path="", field="tokens", context_ids=(), ids=(999_999,)), *answers("fine")]
    first, bad, last = model.prepare(inputs, Truncation.ERROR)
    assert isinstance(first, Prepared) and isinstance(last, Prepared)
    assert isinstance(bad, InvalidArgument) and "vocabulary" in bad.message


def test_no_tokens_at_all_are_refused(model: RewardModel) -> None:
    for item in (RawText(id="", path="", field="raw_text", text=""), Tokens(id="", path="", field="tokens", context_ids=(), ids=())):
        [error] = model.prepare([item], Truncation.ERROR)
        assert isinstance(error, InvalidArgument) and error.violations[0][0] == item.field


def test_raw_text_never_has_two_bos(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.bos_token_id)])
    model = load_folder(write_tiny_reward_model(tmp_path / "model", tokenizer=tokenizer), LoadOptions())
    plain = RawText(id="", path="", field="raw_text", text="bread")
    with_bos = RawText(id="", path="", field="raw_text", text=BOS + "bread")
    one, other = prepared(model, [plain, with_bos])
    assert one.ids == other.ids
    assert one.ids[0] == tokenizer.bos_token_id != one.ids[1]


def test_a_rendered_conversation_has_no_bos_that_its_template_does_not_write(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.bos_token_id)])
    model = load_folder(write_tiny_reward_model(tmp_path / "model", tokenizer=tokenizer), LoadOptions())
    [item] = prepared(model, answers("bread"))
    assert tokenizer.bos_token_id not in item.ids


def test_rendering_warns_of_a_doubled_bos_and_of_special_tokens_in_the_text(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}{{ bos_token }}" + tokenizer.chat_template.replace(" + eos_token", "")
    model = load_folder(write_tiny_reward_model(tmp_path / "model", tokenizer=tokenizer), LoadOptions())
    rendered = model.render((Message("user", f"hello {EOS} there"), Message("assistant", "hi")), Truncation.ERROR)
    assert rendered.text == f"{BOS}{BOS}\n\nHuman: hello {EOS} there\n\nAssistant: hi"
    assert [warning.split(":")[0].split(" holds")[0] for warning in rendered.warnings] == [
        "doubled BOS",
        "messages[0].content",
        f"the chat template does not end the last turn with {EOS}",
    ]


def test_rendering_a_sound_conversation_warns_of_nothing_and_shows_the_ids_that_are_scored(model: RewardModel) -> None:
    rendered = model.render((*QUESTION, Message("assistant", "Mix it.")), Truncation.ERROR)
    assert rendered.warnings == ()
    assert rendered.ids == prepared(model, answers("Mix it."))[0].ids
    assert model.render(QUESTION, Truncation.ERROR).text == "\n\nHuman: How do I bake bread?\n\nAssistant:"


def test_a_tokenizer_without_a_template_scores_raw_text_only(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    model = load_folder(write_tiny_reward_model(tmp_path / "model", tokenizer=tokenizer), LoadOptions())
    conversation, raw = model.prepare([*answers("yes"), RawText(id="", path="", field="raw_text", text="yes")], Truncation.ERROR)
    assert isinstance(conversation, FailedPrecondition) and "chat template" in conversation.message
    assert isinstance(raw, Prepared)


def test_a_template_that_refuses_the_turns_is_the_callers_error(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no system turns here') }}"
    model = load_folder(write_tiny_reward_model(tmp_path / "model", tokenizer=tokenizer), LoadOptions())
    [error] = model.prepare(answers("yes"), Truncation.ERROR)
    assert isinstance(error, InvalidArgument) and "no system turns here" in error.message


def test_the_limit_is_the_smallest_of_model_tokenizer_and_setting(tmp_path: Path, folder: Path) -> None:
    assert load_folder(folder, LoadOptions()).max_input_tokens == 512
    assert load_folder(folder, LoadOptions(max_input_tokens=100)).max_input_tokens == 100
    short = write_tiny_reward_model(tmp_path / "short", tokenizer=tiny_tokenizer(max_length=64))
    assert load_folder(short, LoadOptions()).max_input_tokens == 64


def refusal(folder: Path) -> str:
    with pytest.raises(InvalidArgument) as caught:
        load_folder(folder, LoadOptions())
    assert caught.value.violations[0][0] == "uri"
    return caught.value.message


def test_what_is_no_reward_model_is_refused_with_what_would_be_right(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "config.json" in refusal(tmp_path / "empty")
    assert "2 labels" in refusal(write_tiny_reward_model(tmp_path / "two", num_labels=2))
    assert "LlamaForCausalLM" in refusal(write_tiny_causal_lm(tmp_path / "causal"))


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    torn = write_tiny_reward_model(tmp_path / "torn")
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "weights" in refusal(torn)
    headless = write_tiny_reward_model(tmp_path / "headless")
    from safetensors.torch import load_file, save_file

    state = load_file(headless / "model.safetensors")
    del state["score.weight"]
    save_file(state, headless / "model.safetensors", metadata={"format": "pt"})
    assert "score.weight" in refusal(headless)
    state["score.weight"] = torch.full((1, 32), float("nan"))
    save_file(state, headless / "model.safetensors", metadata={"format": "pt"})
    assert "damaged" in refusal(headless)
    unreadable = write_tiny_reward_model(tmp_path / "unreadable")
    (unreadable / "config.json").write_text("{")
    assert "config.json" in refusal(unreadable)
    mute = write_tiny_reward_model(tmp_path / "mute")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (mute / name).unlink()
    assert "tokenizer" in refusal(mute)
