"""What is refused at the load of a checkpoint, whatever family asks for it: the field, and what would be right."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_models import write_tiny_causal_lm, write_tiny_reward_model

from assay_kit.errors import InvalidArgument
from assay_reward.models import LoadOptions, load_folder


def needs_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "configuration_own.OwnConfig"}, "model_type": "own"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration_own.py").write_text("raise SystemExit('this code was run')\n")


def needs_code_for_a_known_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "modeling_own.OwnModel", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling_own.py").write_text("raise SystemExit('this code was run')\n")


def without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def with_half_a_tokenizer(folder: Path) -> None:
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text[: len(text) // 2])


def cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def with_nonsense_for_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 4096)


def with_a_nan(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][399, 3] = torch.nan  # a row that a first input does not touch
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def without_a_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    left = {name: weight for name, weight in weights.items() if "layers.1.mlp" not in name}
    save_file(left, folder / "model.safetensors", metadata={"format": "pt"})


DAMAGES = [
    (needs_code, "needs code of its own"),
    (needs_code_for_a_known_type, "needs code of its own"),
    (without_tokenizer, "holds no tokenizer"),
    (with_half_a_tokenizer, "the tokenizer in"),
    (cut_short, "cannot be read"),
    (with_nonsense_for_weights, "cannot be read"),
    (with_a_nan, "model.embed_tokens.weight hold NaN"),
    (without_a_layer, "lacks weights"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGES)
def test_a_damaged_classifier_is_refused(tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    folder = write_tiny_reward_model(tmp_path / "rm")
    load_folder(folder, LoadOptions())
    damage(folder)
    with pytest.raises(InvalidArgument) as caught:
        load_folder(folder, LoadOptions())
    assert caught.value.violations[0][0] == "uri" and said in caught.value.message


@pytest.mark.parametrize(("damage", "said"), DAMAGES)
def test_a_damaged_reference_is_refused_by_its_field(tmp_path: Path, damage: Callable[[Path], None], said: str) -> None:
    for name in ("policy", "reference"):
        write_tiny_causal_lm(tmp_path / name)
    folder = tmp_path / "dpo"
    folder.mkdir()
    (folder / "implicit_reward.json").write_text('{"policy": "../policy", "reference": "../reference", "beta": 0.1}')
    load_folder(folder, LoadOptions())
    damage(tmp_path / "reference")
    with pytest.raises(InvalidArgument) as caught:
        load_folder(folder, LoadOptions())
    assert caught.value.violations[0][0] == "uri" and caught.value.message.startswith("uri: reference: ") and said in caught.value.message


def test_a_language_model_alone_is_refused_with_the_file_that_would_make_it_a_reward(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r'implicit_reward.json: \{"policy": URI, "reference": URI, "beta": 0.1'):
        load_folder(write_tiny_causal_lm(tmp_path / "lm"), LoadOptions())


def test_two_labels_alone_are_refused_with_the_file_that_would_weigh_them(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r'2 labels.*reward_heads.json.*\{"heads": \{"helpful": 0.65'):
        load_folder(write_tiny_reward_model(tmp_path / "two", num_labels=2), LoadOptions())


def test_a_folder_of_no_family_is_refused_with_the_files_of_all(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load_folder(tmp_path, LoadOptions())
    for marker in (
        "config.json",
        "bag_of_words.json",
        "reward_heads.json",
        "implicit_reward.json",
        "ensemble.json",
        "generative_judge.json",
    ):
        assert marker in caught.value.message
