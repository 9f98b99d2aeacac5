"""The bound: this service's own engine, given everything at once, without a server. Reads and writes lines of JSON.

    python -m benchmarks.reward_peers.offline MODEL DTYPE

A command is `{"groups": [{"prompt": …, "answers": […]}, …], "batch_tokens": …}`; all is tokenised before the clock starts, prompts
of similar length are put beside each other, and each batch is filled to the budget. With `"reference": true` the same texts go
through transformers' own forward, one by one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.reward_peers.padded import PaddedModel

from assay_data.conversations import Message
from assay_kit.errors import AssayError
from assay_reward.inputs import TextAnswer, Truncation
from assay_reward.models import LoadOptions, load_folder
from assay_reward.models.base import Prepared, RemoteModel, RewardModel


def prepared(model: RewardModel, group: dict[str, Any]) -> list[Prepared]:
    """A group's sequences."""
    context = (Message("user", group["prompt"]),)
    inputs = [TextAnswer(id="", path="", field="text", context=context, text=answer) for answer in group["answers"]]
    found = model.prepare(inputs, Truncation.ERROR)
    for one in found:
        if isinstance(one, AssayError):
            raise one
    return [one for one in found if isinstance(one, Prepared)]


def batches(model: RewardModel, groups: Sequence[list[Prepared]], budget: int) -> Iterator[list[Prepared]]:
    """Groups in token-budget batches, of similar length beside each other; one that is larger than a batch is cut."""
    batch: list[Prepared] = []
    spent = 0
    for group in sorted(groups, key=lambda group: max(item.tokens for item in group)):
        cost = model.cost(group)
        if batch and spent + cost > budget:
            yield batch
            batch, spent = [], 0
        batch, spent = [*batch, *group], spent + cost
    if batch:
        yield batch


def answer(model: RewardModel, command: dict[str, Any]) -> dict[str, Any]:
    """Scores in the order given, and what the forward took."""
    groups = [prepared(model, group) for group in command["groups"]]
    planned = list(batches(model, groups, command["batch_tokens"]))
    started, busy = time.perf_counter(), time.process_time()
    scores: dict[tuple[int, ...], float] = {}
    for batch in planned:
        scores.update(zip((item.ids for item in batch), model.score(batch).raw, strict=True))
    wall, cpu = time.perf_counter() - started, time.process_time() - busy
    return {"scores": [[scores[item.ids] for item in group] for group in groups], "wall_seconds": wall, "cpu_seconds": cpu}


def main() -> None:
    folder, dtype = sys.argv[1:]
    torch.set_num_threads(1)
    model = load_folder(Path(folder), LoadOptions(dtype=dtype))
    assert not isinstance(model, RemoteModel)
    reference: PaddedModel | None = None
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command.get("reference"):
            reference = reference or PaddedModel(folder, dtype, padding_side="right")
            found: dict[str, Any] = {"scores": [[reference.scores([text])[0] for text in texts] for texts in command["texts"]]}
        else:
            found = answer(model, command)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
