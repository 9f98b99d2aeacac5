"""CPU time per score of the packed forward beside that of plain transformers, without a server.

`python tests/benchmarks/packed_forward.py`

Random Llamas of about 5 M and 100 M parameters and one as small as the demo's; float32, one thread. CPU seconds rather than wall, and
the best of a few rounds, since machines are shared. `of roof` is the floating-point work that the distinct tokens need, at the rate
measured for the model's own matrix products in the same run, over the time taken: 1.00 is a forward that does nothing but multiply.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from assay_reward.models.forwards import PlainForward
from assay_reward.models.packed.families import FAMILIES
from assay_reward.models.packed.forward import PackedForward
from assay_reward.models.packed.linears import ROWS, Weights, faster
from assay_reward.models.packed.plan import plan_of

Batch = list[tuple[int, ...]]

MODELS = {
    "demo": {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4},
    "5M": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4},
    "100M": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 12},
}
ALLOWED_RELATIVE_ERROR = 1e-4


@dataclass(frozen=True, kw_only=True)
class Row:
    """One subject under one load."""

    subject: str
    cpu_ms_per_score: float
    of_roof: float


def _ids(chosen: random.Random, count: int) -> tuple[int, ...]:
    return tuple(chosen.randrange(3, 8000) for _ in range(count))


def loads(few: bool) -> dict[str, list[Batch]]:
    """Batches as a scheduler would make them: up to a few thousand tokens each."""
    chosen = random.Random(0)
    singles = [_ids(chosen, chosen.randint(150, 250)) for _ in range(4 if few else 16)]
    pairs = [prompt + _ids(chosen, chosen.randint(60, 140)) for prompt in (_ids(chosen, 100) for _ in range(2 if few else 8)) for _ in "ab"]
    prompt = _ids(chosen, 400)
    return {
        "single alone": [[one] for one in singles[:4]],
        "singles ~200": [singles],
        "pairs 100+100": [pairs],
        "best-of-16 400+200": [[prompt + _ids(chosen, 200) for _ in range(16)]],
    }


def _cpu_seconds(run: Callable[[], object], rounds: int) -> float:
    best = float("inf")
    for _ in range(rounds):
        started = time.process_time()
        run()
        best = min(best, time.process_time() - started)
    return best


def _roof(config: LlamaConfig, rounds: int) -> float:
    """Floating-point operations a second of the layers' own matrix products."""
    size, heads, key_heads = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    width, inner = config.hidden_size, config.intermediate_size
    shapes = [(width, (heads + 2 * key_heads) * size), (heads * size, width), (width, 2 * inner), (inner, width)]
    samples = [Weights(weight=torch.randn(out, into)) for into, out in shapes]
    linears = [faster(samples)(sample) for sample in samples]
    inputs = [torch.randn(ROWS, into) for into, _ in shapes]
    repeats = 8

    def run() -> None:
        for linear, rows in zip(linears, inputs, strict=True):
            for _ in range(repeats):
                linear(rows)

    work = 2 * ROWS * repeats * sum(into * out for into, out in shapes)
    return work / _cpu_seconds(run, 3 * rounds)


def _work(config: LlamaConfig, batches: Sequence[Batch]) -> float:
    """Operations that the tokens of a plan need: matrix products, and each token's attention to those before it.

    Queries and MLP of the last layer are counted for no token: of those that are read they are little.
    """
    size, heads, key_heads = config.head_dim, config.num_attention_heads, config.num_key_value_heads
    width, inner = config.hidden_size, config.intermediate_size
    layer = width * (2 * heads + 2 * key_heads) * size + 3 * width * inner
    full = config.num_hidden_layers - 1
    work = 0.0
    for batch in batches:
        plan = plan_of([np.array(one, dtype=np.int32) for one in batch])
        seen = sum((segment.end**2 - segment.start**2) / 2 for segment in plan.segments)
        work += 2 * plan.tokens * (full * layer + 2 * width * key_heads * size) + 4 * full * heads * size * seen
    return work


def measure(name: str, *, few: bool, rounds: int) -> None:
    """Prints the table of one model.

    Raises:
        SystemExit: a score differs from that of plain transformers by more than is allowed.
    """
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=8192, num_labels=1, pad_token_id=0, max_position_embeddings=2048, **MODELS[name])
    model = LlamaForSequenceClassification(config).eval()
    with torch.no_grad():
        model.score.weight.normal_(0.0, 1.0)
    parameters = sum(weight.numel() for weight in model.parameters())
    plain = PlainForward(model)
    tables = loads(few)
    wanted = {load: [plain.logits(batch).rows for batch in batches] for load, batches in tables.items()}
    times = {
        load: _cpu_seconds(lambda batches=batches: [plain.logits(batch) for batch in batches], max(1, rounds // 2))
        for load, batches in tables.items()
    }
    packed = PackedForward(model, FAMILIES[0])
    roof = _roof(config, rounds)
    print(f"\n{name}: {parameters / 1e6:.1f} M parameters, matrix products at {roof / 1e9:.0f} GFLOP/s")
    print(f"{'load':<20} {'subject':<22} {'CPU ms/score':>12} {'times plain':>12} {'of roof':>8}")
    for load, batches in tables.items():
        count = sum(len(batch) for batch in batches)
        for batch, rows in zip(batches, wanted[load], strict=True):
            _check(load, packed.logits(batch).rows, rows)
        alone = [[one] for batch in batches for one in batch]
        rows = [_row("plain, one by one", times[load], count, _work(config, alone) / roof)]
        seconds = _cpu_seconds(lambda alone=alone: [packed.logits(batch) for batch in alone], rounds)
        rows.append(_row("packed, nothing shared", seconds, count, _work(config, alone) / roof))
        seconds = _cpu_seconds(lambda batches=batches: [packed.logits(batch) for batch in batches], rounds)
        rows.append(_row("packed, shared", seconds, count, _work(config, batches) / roof))
        for row in rows:
            speedup = rows[0].cpu_ms_per_score / row.cpu_ms_per_score
            print(f"{load:<20} {row.subject:<22} {row.cpu_ms_per_score:>12.2f} {speedup:>12.2f} {row.of_roof:>8.2f}")


def _row(subject: str, seconds: float, count: int, ideal: float) -> Row:
    return Row(subject=subject, cpu_ms_per_score=1000 * seconds / count, of_roof=ideal / seconds)


def _check(load: str, found: list[list[float]], wanted: list[list[float]]) -> None:
    scale = max(abs(row[0]) for row in wanted)
    worst = max(abs(one[0] - other[0]) for one, other in zip(found, wanted, strict=True)) / scale
    if worst > ALLOWED_RELATIVE_ERROR:
        raise SystemExit(f"{load}: a score differs from plain transformers by {worst:.1e} of the largest score")


def main() -> None:
    """Measures the models named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--few", action="store_true", help="a quarter of the singles and pairs")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for name in asked.models:
        measure(name, few=asked.few, rounds=asked.rounds)


if __name__ == "__main__":
    main()
