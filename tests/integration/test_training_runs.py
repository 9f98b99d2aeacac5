"""Each algorithm trains, and goes on after kill -9 to the very weights of a run that was left alone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import torch
from support.training_runs import (
    SCRATCH,
    kill_after,
    lineage_of,
    losses,
    mean,
    process_of,
    run_here,
    run_spec,
    weights_of,
)
from support.training_service import rewards
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from assay.reward.v1 import reward_pb2
from assay_client.messages import conversation
from assay_data.fingerprints import fingerprint_folder
from assay_data.generated import generate_pairs
from assay_data.pairs import read_pairs, write_pairs
from assay_data.storage import sha256_of
from assay_training.examples import as_turns, chosen_and_rejected, encode

PROMPT_LEFT = reward_pb2.TRUNCATION_POLICY_PROMPT_LEFT


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    write_pairs(str(file), [pair for pair in generate_pairs(160, seed=1) if pair.chosen and pair.rejected and not pair.rejected_prompt])
    return file


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A policy that the others start from; its training is itself tested below."""
    folder = tmp_path_factory.mktemp("policy")
    spec = run_spec(folder, "sft", sft={"scratch": SCRATCH, "data_uri": str(data)}, optimizer={"max_steps": 40, "checkpoint_steps": 10})
    lines = run_here(spec)
    (folder / "lines.json").write_text(json.dumps(lines))
    return folder / "sft"


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory, data: Path, policy: Path) -> Path:
    folder = tmp_path_factory.mktemp("reward-model")
    spec = run_spec(
        folder,
        "rm",
        reward_model={"model_uri": str(policy), "data_uri": str(data), "label_flip_rate": 0.1},
        optimizer={"max_steps": 60, "checkpoint_steps": 10, "batch_size": 8, "learning_rate": 5e-3},
    )
    lines = run_here(spec)
    (folder / "lines.json").write_text(json.dumps(lines))
    return folder / "rm"


def lines_of(model: Path) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = json.loads((model.parent / "lines.json").read_text())
    return lines


def test_sft_learns_and_leaves_a_chat_model_with_its_lineage(policy: Path, data: Path) -> None:
    loss = losses(lines_of(policy))
    assert len(loss) == 40
    assert mean(loss[-5:]) < mean(loss[:5]) - 1
    model = AutoModelForCausalLM.from_pretrained(policy)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hello?"}], tokenize=False, add_generation_prompt=True)
    assert prompt == "\n\nHuman: Hello?\n\nAssistant:"
    assert model.config.vocab_size == len(tokenizer) <= SCRATCH["vocab_size"]
    lineage = lineage_of(policy)
    assert lineage["fingerprint"] == fingerprint_folder(policy).fingerprint
    assert lineage["data"]["sha256"] == sha256_of(data)
    assert lineage["seed"] == 7 and lineage["steps"] == 40 and lineage["versions"]["trl"].startswith("1.16.")


def test_the_reward_model_learns_from_labels_of_which_some_were_flipped(reward_model: Path, policy: Path) -> None:
    loss = losses(lines_of(reward_model))
    assert mean(loss[-5:]) < mean(loss[:5]) - 0.1
    lineage = lineage_of(reward_model)
    assert lineage["labels_flipped"] == round(0.1 * (lineage["examples"] + lineage["pairs_too_long"]))
    assert lineage["base"]["fingerprint"] == fingerprint_folder(policy).fingerprint
    model = AutoModelForSequenceClassification.from_pretrained(reward_model)
    assert model.config.num_labels == 1 and model.config.pad_token_id != AutoTokenizer.from_pretrained(reward_model).eos_token_id


def test_a_reward_model_killed_in_the_middle_ends_with_the_same_weights(
    reward_model: Path, policy: Path, data: Path, tmp_path: Path
) -> None:
    spec = run_spec(
        tmp_path,
        "rm",
        reward_model={"model_uri": str(policy), "data_uri": str(data), "label_flip_rate": 0.1},
        optimizer={"max_steps": 60, "checkpoint_steps": 10, "batch_size": 8, "learning_rate": 5e-3},
    )
    kill_after(spec, 13)
    run_here(spec)
    assert weights_of(tmp_path / "rm") == weights_of(reward_model)


async def test_the_reward_service_feeds_a_model_the_very_tokens_it_was_trained_on(reward_model: Path, data: Path, tmp_path: Path) -> None:
    pairs = list(read_pairs(str(data), limit=20))
    chosen, _ = chosen_and_rejected(pairs)
    tokenizer = AutoTokenizer.from_pretrained(reward_model)
    longest = SCRATCH["max_context_tokens"]
    encoded = encode(tokenizer, chosen)
    trained_on = [example.with_whole_answer(longest).ids for example in encoded]
    assert max(map(len, encoded)) > longest, "no pair of the test is cut"
    options = reward_pb2.ScoreOptions(truncation=PROMPT_LEFT)
    assert all(ids[-1] == tokenizer.eos_token_id for ids in trained_on)
    model = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
    async with rewards(tmp_path / "reward") as service:
        await service.load("rm", reward_model)
        for ids, (prompt, answer) in zip(trained_on, chosen, strict=True):
            turns = [*as_turns(prompt), {"role": "assistant", "content": answer}]
            request = reward_pb2.RenderPromptRequest(conversation=conversation(turns), truncation=PROMPT_LEFT)
            rendered = await service.stub.RenderPrompt(request)
            assert list(rendered.tokens.ids) == ids
            item = reward_pb2.ScoreItem(conversation=conversation(turns))
            scored = await service.stub.ScoreBatch(reward_pb2.ScoreBatchRequest(items=[item], options=options))
            with torch.no_grad():
                logit = model(input_ids=torch.tensor([ids])).logits.item()
            assert scored.results[0].score.raw == pytest.approx(logit, abs=1e-5)


def test_the_bag_of_words_is_fitted_and_carries_its_lineage(data: Path, tmp_path: Path) -> None:
    spec = run_spec(tmp_path, "bow", reward_model={"kind": "REWARD_MODEL_KIND_BAG_OF_WORDS", "data_uri": str(data)})
    run_here(spec)
    lineage = lineage_of(tmp_path / "bow")
    assert lineage["metrics"]["accuracy"] > 0.6
    assert lineage["fingerprint"] == fingerprint_folder(tmp_path / "bow").fingerprint


def test_dpo_learns_and_killed_in_the_middle_ends_with_the_same_weights(policy: Path, data: Path, tmp_path: Path) -> None:
    def spec(name: str) -> object:
        return run_spec(
            tmp_path / name,
            "dpo",
            dpo={"model_uri": str(policy), "data_uri": str(data)},
            optimizer={"max_steps": 32, "checkpoint_steps": 8, "batch_size": 8, "learning_rate": 1e-3},
        )

    loss = losses(run_here(spec("straight")))
    assert loss[0] == pytest.approx(0.6931, abs=1e-3)
    assert mean(loss[-5:]) < 0.65
    kill_after(spec("killed"), 11)
    run_here(spec("killed"))
    assert weights_of(tmp_path / "killed" / "dpo") == weights_of(tmp_path / "straight" / "dpo")


async def test_ppo_raises_the_reward_and_killed_in_the_middle_ends_with_the_same_weights(
    policy: Path, reward_model: Path, data: Path, tmp_path: Path
) -> None:
    async with rewards(tmp_path / "reward") as client:
        info = await client.load("rm", reward_model)

        def spec(name: str) -> object:
            return run_spec(
                tmp_path / name,
                "ppo",
                ppo={
                    "model_uri": str(policy),
                    "data_uri": str(data),
                    "gate": {"reward_model": "rm"},
                    "rollout_size": 16,
                    "rollouts": 12,
                    "max_new_tokens": 12,
                    "snapshot_rollouts": 4,
                },
                optimizer={"learning_rate": 2e-3, "checkpoint_steps": 6},
                reward_target=client.target,
                reward_fingerprint=info.provenance.fingerprint,
            )

        lines = await asyncio.to_thread(run_here, spec("straight"))
        await asyncio.to_thread(kill_after, spec("killed"), 9)
        resumed = await asyncio.to_thread(run_here, spec("killed"))

    straight, killed = tmp_path / "straight" / "ppo", tmp_path / "killed" / "ppo"
    assert any(line["stage"] == "resume" for line in resumed)
    assert weights_of(killed) == weights_of(straight)
    lineage = lineage_of(straight)
    assert lineage_of(killed)["rollouts"] == lineage["rollouts"]
    assert len(lineage["rollouts"]) == 12 and len(lines) >= 24
    reward = [rollout["reward"] for rollout in lineage["rollouts"]]
    assert mean(reward[-3:]) > mean(reward[:3])
    assert lineage["rollouts"][0]["kl"] == pytest.approx(0, abs=1e-4) and lineage["kl_to_start"]["kl"] > 0.05
    assert [(snapshot["rollout"], snapshot["path"]) for snapshot in lineage["snapshots"]] == [
        (4, "snapshots/rollout-4"),
        (8, "snapshots/rollout-8"),
    ]
    for folder in (straight, straight / "snapshots" / "rollout-4"):
        model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        assert model.num_parameters() == AutoModelForCausalLM.from_pretrained(policy).num_parameters()
    assert weights_of(killed / "snapshots" / "rollout-4") == weights_of(straight / "snapshots" / "rollout-4")


async def test_ppo_says_so_when_the_reward_model_is_another_than_the_gate_saw(
    policy: Path, reward_model: Path, data: Path, tmp_path: Path
) -> None:
    async with rewards(tmp_path / "reward") as client:
        await client.load("rm", reward_model)
        spec = run_spec(
            tmp_path,
            "ppo",
            ppo={"model_uri": str(policy), "data_uri": str(data), "gate": {"reward_model": "rm"}, "rollout_size": 8, "rollouts": 1},
            reward_target=client.target,
            reward_fingerprint="0" * 64,
        )
        with pytest.raises(Exception, match="the reward model changed under the training"):
            await asyncio.to_thread(run_here, spec)
    assert not (tmp_path / "ppo").exists()


def test_a_run_that_cannot_be_done_says_why_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": [{"role": "user", "content": "Hi"}], "chosen": "a", "rejected": "b"}\n{"prompt": 3}\n')
    spec = run_spec(tmp_path, "bow", reward_model={"kind": "REWARD_MODEL_KIND_BAG_OF_WORDS", "data_uri": str(bad)})
    with process_of(spec) as process:
        out, err = process.communicate(timeout=250)
    assert process.returncode == 1
    error = json.loads(out.splitlines()[-1])["error"]
    assert "bad.jsonl" in error and "2" in error and "Traceback" not in error
    assert not (tmp_path / "bow").exists() and not list(tmp_path.glob(".partial*"))


def test_a_folder_that_is_there_already_is_not_touched(policy: Path, data: Path, tmp_path: Path) -> None:
    taken = tmp_path / "sft"
    taken.mkdir()
    (taken / "precious").write_text("mine")
    spec = run_spec(tmp_path, "sft", sft={"model_uri": str(policy), "data_uri": str(data)})
    with pytest.raises(Exception, match="is there already"):
        run_here(spec)
    assert [path.name for path in taken.iterdir()] == ["precious"]
