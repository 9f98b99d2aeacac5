"""Every family's scores against its own forward in transformers, and what sequences have in common computed once."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.tiny_classifiers import DECODERS, ENCODERS, OTHERS, WINDOW, write_classifier
from support.tiny_models import tiny_tokenizer
from transformers import AutoModelForSequenceClassification

from assay_kit.errors import InvalidArgument
from assay_reward.models import LoadOptions, load_folder
from assay_reward.models.base import Prepared
from assay_reward.models.forwards import PlainForward
from assay_reward.models.packed.encoder import PackedEncoder
from assay_reward.models.packed.forward import PackedForward
from assay_reward.models.qwen2_reward import Qwen2ForRewardModel
from assay_reward.models.sequence_classifier import SequenceClassifier

PAD, EOS = tiny_tokenizer().pad_token_id, tiny_tokenizer().eos_token_id
Sequence = tuple[int, ...]
Written = Callable[[str], tuple[Path, SequenceClassifier]]


def ids(count: int, seed: int) -> Sequence:
    """Random tokens, none of them special."""
    chosen = random.Random(seed)
    return tuple(chosen.randrange(3, 380) for _ in range(count))


def items(sequences: list[Sequence]) -> list[Prepared]:
    return [Prepared(ids=one, prompt_tokens=1, response_tokens=len(one) - 1) for one in sequences]


def scores(model: SequenceClassifier, sequences: list[Sequence]) -> list[float]:
    return list(model.score(items(sequences)).raw)


def plain_scores(folder: Path, sequences: list[Sequence]) -> list[float]:
    """What the family's own forward gives, a sequence at a time."""
    reward = "Qwen2ForRewardModel" in (folder / "config.json").read_text()
    model = (Qwen2ForRewardModel if reward else AutoModelForSequenceClassification).from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return [model(torch.tensor([one]), attention_mask=torch.ones(1, len(one), dtype=int)).logits[0, 0].item() for one in sequences]


PROMPT = ids(90, 1)
BATCH = [
    PROMPT + ids(40, 2),
    PROMPT + ids(3, 3),
    PROMPT + ids(1, 4),
    PROMPT[:50] + ids(30, 5),
    PROMPT[:17] + ids(12, 6),
    ids(1, 7),
    ids(WINDOW - 1, 8),
    ids(WINDOW + 1, 9),
    ids(150, 10),
    PROMPT,
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    made: dict[str, tuple[Path, SequenceClassifier]] = {}

    def write(name: str) -> tuple[Path, SequenceClassifier]:
        if name not in made:
            folder = write_classifier(tmp_path_factory.mktemp("classifiers") / name, name)
            made[name] = folder, load_folder(folder, LoadOptions())
        return made[name]

    return write


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS, *OTHERS])
def test_scores_are_those_of_the_familys_own_forward(written: Written, name: str) -> None:
    folder, model = written(name)
    assert isinstance(model._forward, PackedForward if name in DECODERS else PackedEncoder if name in ENCODERS else PlainForward)
    wanted = plain_scores(folder, BATCH)
    assert scores(model, BATCH) == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert max(wanted) - min(wanted) > 0.3


@pytest.mark.parametrize("name", [*DECODERS, *ENCODERS, *OTHERS])
def test_a_score_is_the_same_alone_and_in_any_batch_and_order(written: Written, name: str) -> None:
    _, model = written(name)
    alone = {one: scores(model, [one])[0] for one in BATCH}
    for seed in range(3):
        some = random.Random(seed).sample(BATCH, 7)
        assert scores(model, some) == pytest.approx([alone[one] for one in some], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["llama", "mistral_window", "mistral_wide_window", "qwen2_window", "gemma2", "gemma3"])
def test_long_sequences_that_part_anywhere_score_as_by_the_familys_own_forward(written: Written, name: str) -> None:
    folder, model = written(name)
    long = ids(1400, 11)
    batch = [long, *(long[:part] + ids(count, part) for part, count in ((511, 3), (512, 200), (513, 1), (700, 650), (1030, 20)))]
    assert model.cost(items(batch)) < sum(map(len, batch)) / 2
    wanted = plain_scores(folder, batch)
    assert scores(model, batch) == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert [scores(model, [one])[0] for one in batch] == pytest.approx(wanted, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["deberta_v3", "modernbert", "modernbert_mean"])
def test_long_sequences_score_as_by_the_familys_own_forward(written: Written, name: str) -> None:
    folder, model = written(name)
    batch = [ids(count, count) for count in (127, 128, 129, 300, 1400)]
    assert scores(model, batch) == pytest.approx(plain_scores(folder, batch), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen2_reward_head", "gemma2", "bert", "roberta", "deberta_v3", "modernbert"])
def test_padding_ids_inside_a_sequence_are_read_as_the_familys_own_forward_reads_them(written: Written, name: str) -> None:
    folder, model = written(name)
    text = ids(20, 12)
    batch = [text, (*text, PAD), (*text, PAD, PAD, PAD), (PAD, *text), (*text[:9], PAD, *text[9:]), (PAD,), (PAD, PAD), (*text, EOS)]
    assert scores(model, batch) == pytest.approx(plain_scores(folder, batch), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("padding", [None, EOS])
def test_a_padding_id_that_is_missing_or_eos_scores_as_plainly(tmp_path: Path, padding: int | None) -> None:
    folder = write_classifier(tmp_path / "llama", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": padding}))
    model = load_folder(folder, LoadOptions())
    batch = [ids(20, 13), (*ids(20, 13), EOS), (*ids(20, 13), EOS, EOS), (*ids(20, 13), PAD)]
    assert scores(model, batch) == pytest.approx(plain_scores(folder, batch), rel=1e-4, abs=1e-5)


def test_a_group_computes_its_prompt_once_whatever_the_order_and_company(written: Written) -> None:
    _, model = written("llama")
    group = [(*ids(400, 20), *ids(200, 21 + index)) for index in range(16)]
    stranger = ids(100, 99)
    for batch in (group, [*reversed(group)], [*group[:8], stranger, *group[8:]]):
        tokens = 400 + 16 * 200 + (100 if stranger in batch else 0)
        assert model.score(items(batch)).computed_tokens == model.cost(items(batch)) == tokens


def test_equal_sequences_are_computed_once_and_scored_each(written: Written) -> None:
    for name in ("llama", "bert"):
        _, model = written(name)
        one, other = ids(30, 30), ids(20, 31)
        found = model.score(items([one, other, one, one]))
        assert found.computed_tokens == model.cost(items([one, other, one, one])) == 50
        assert found.raw[0] == found.raw[2] == found.raw[3] != found.raw[1]


def test_groups_within_groups_share_what_each_has_in_common(written: Written) -> None:
    folder, model = written("llama")
    system, questions = ids(60, 40), [ids(50, 41), ids(40, 42)]
    batch = [system + question + ids(10, 43 + index) for question in questions for index in range(3)]
    found = model.score(items(batch))
    assert found.computed_tokens == 60 + 50 + 40 + 6 * 10
    assert list(found.raw) == pytest.approx(plain_scores(folder, batch), rel=1e-4, abs=1e-5)


def test_nothing_shorter_than_what_sharing_costs_is_shared(written: Written) -> None:
    _, model = written("llama")
    assert model.cost(items([ids(15, 50) + ids(5, 51), ids(15, 50) + ids(5, 52)])) == 40
    assert model.cost(items([ids(16, 50) + ids(5, 51), ids(16, 50) + ids(5, 52)])) == 26


def test_a_batch_of_nothing_costs_and_gives_nothing(written: Written) -> None:
    for name in ("llama", "bert"):
        _, model = written(name)
        assert model.cost([]) == 0
        assert model.score([]).raw == ()


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gemma3", "bert", "deberta_v3", "modernbert"])
def test_bfloat16_is_near_and_says_so(written: Written, name: str) -> None:
    folder, model = written(name)
    narrow = load_folder(folder, LoadOptions(dtype="bfloat16"))
    assert isinstance(narrow, SequenceClassifier) and isinstance(narrow._forward, PackedForward | PackedEncoder)
    assert narrow.dtype == "bfloat16"
    found, wanted = scores(narrow, BATCH), scores(model, BATCH)
    assert found == pytest.approx(wanted, abs=0.25)
    assert found != wanted


def test_a_reward_head_is_read_without_the_code_its_checkpoint_brings(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "model", "qwen2_reward_head")
    config = json.loads((folder / "config.json").read_text())
    del config["id2label"], config["label2id"]
    config["auto_map"] = {"AutoModel": "modeling_qwen2_rm.Qwen2ForRewardModel", "AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_qwen2_rm.py").write_text("raise SystemExit('this must not run')")
    (folder / "configuration_qwen2_rm.py").write_text("raise SystemExit('this must not run')")
    model = load_folder(folder, LoadOptions())
    assert model.architecture == "Qwen2ForRewardModel"
    del config["auto_map"]
    (folder / "config.json").write_text(json.dumps(config))
    assert scores(model, BATCH[:3]) == pytest.approx(plain_scores(folder, BATCH[:3]), rel=1e-4, abs=1e-5)


def test_code_of_any_other_architecture_is_still_refused(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "model", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling.Mine"}}))
    with pytest.raises(InvalidArgument, match="code of its own"):
        load_folder(folder, LoadOptions())
