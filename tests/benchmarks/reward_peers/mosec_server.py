"""A mosec server that batches what comes within 5 ms, 32 texts at most, padded: the usual dynamic batching.

BENCHMARK_MODEL=… BENCHMARK_DTYPE=float32 python mosec_server.py --port PORT --address 127.0.0.1
"""

from __future__ import annotations

import os
from typing import Any

import torch
from benchmarks.reward_peers.padded import PaddedModel
from mosec import Server, Worker

BATCH = 32
WAIT_MS = 5


class Scores(Worker):  # type: ignore[misc]
    """Scores of texts."""

    def __init__(self) -> None:
        super().__init__()
        torch.set_num_threads(1)
        self._model = PaddedModel(os.environ["BENCHMARK_MODEL"], os.environ["BENCHMARK_DTYPE"], padding_side="right")

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, float]]:
        return [{"score": score} for score in self._model.scores([request["text"] for request in data])]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Scores, num=1, max_batch_size=BATCH, max_wait_time=WAIT_MS)
    server.run()
