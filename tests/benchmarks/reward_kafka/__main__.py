"""`make bench-reward-kafka`: candidates a second through the topics against gRPC; writes out/bench/reward-kafka.json.

In each repetition all requests are queued first, then the service starts and works them off, then the same requests are put to the
same process over gRPC. Exits 1 where an answer is missing, came twice, or has another score than over gRPC.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import grpc
from benchmarks.reward_kafka.doors import Answers, Reader, call, publish, stream
from benchmarks.reward_kafka.requests import Requests
from benchmarks.reward_kafka.watch import Watch
from benchmarks.reward_peers.checkpoints import checkpoint
from benchmarks.reward_peers.processes import ServerProcess
from benchmarks.reward_peers.report import processor
from rich.console import Console
from rich.table import Table

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_cli.broker import LocalBroker
from assay_cli.supervised import Guardian
from assay_data.bag_of_words import fit_bag_of_words
from assay_data.generated import generate_pairs
from assay_kit.kafka import KafkaConnection, ensure_topics

AIM = 0.95
_START_SECONDS = 180.0
_TOLERANCE = 1e-5
_MODELS = {"bag_of_words": 20_000, "5m": 2_000}
"""And how many candidates they score by default: some seconds' work."""


class Service:
    """One start of the reward service, which remembers its models."""

    def __init__(self, state: Path, bootstrap: str, guardian: Guardian) -> None:
        self._endpoint = state / "endpoint.json"
        self._endpoint.unlink(missing_ok=True)
        environment = {"ASSAY_DATA_DIR": str(state), "ASSAY_KAFKA_BOOTSTRAP": bootstrap, "ASSAY_THREADS": "1", "ASSAY_LOG_LEVEL": "WARNING"}
        command = [sys.executable, "-m", "assay_reward"]
        self.process = ServerProcess(command, log=state / "server.log", guardian=guardian, environment=environment)

    def wait(self) -> None:
        """Waits until it is reached."""
        self.process.wait_until(self._endpoint.exists, seconds=_START_SECONDS)
        found = json.loads(self._endpoint.read_text())
        self.target, self.metrics = str(found["grpc"]), str(found["metrics"])

    def load(self, name: str, folder: Path) -> None:
        """Has it load a model, which later starts find again."""
        with grpc.insecure_channel(self.target) as channel:
            request = reward_pb2.LoadModelRequest(name=name, uri=str(folder))
            reward_pb2_grpc.ModelAdminServiceStub(channel).LoadModel(request, timeout=_START_SECONDS)


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, _interrupt)
    load_before, rows = os.getloadavg()[0], []
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, LocalBroker(Path(folder) / "kafka") as broker:
        connection = KafkaConnection(broker.bootstrap)
        ensure_topics(connection)
        for model in options.models:
            state = Path(folder) / model
            state.mkdir()
            guardian = Guardian()
            try:
                rows.append(_model(model, state, broker.bootstrap, connection, guardian, options))
            finally:
                guardian.close()
    found = {
        "rows": rows,
        "summary": {"ratio": round(min(row["ratio"] for row in rows), 3), "aim": AIM},
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "load_before": round(load_before, 2),
            "load_after": round(os.getloadavg()[0], 2),
        },
    }
    (options.out / "reward-kafka.json").write_text(json.dumps(found, indent=2) + "\n")
    _print(found, Console(width=None if sys.stdout.isatty() else 180))
    wrong = [row for row in rows if row["max_relative_difference"] > _TOLERANCE]
    for row in wrong:
        print(f"wrong: {row['model']}: scores differ between the doors by up to {row['max_relative_difference']:.1e} relative")
    return 1 if wrong else 0


def _model(
    model: str, state: Path, bootstrap: str, connection: KafkaConnection, guardian: Guardian, options: argparse.Namespace
) -> dict[str, Any]:
    """All repetitions with one model."""
    service = Service(state, bootstrap, guardian)
    try:
        service.wait()
        service.load("rm", _folder(model, options.out / "models", state))
    finally:
        service.process.stop()
    candidates = options.candidates or _MODELS[model]
    done = [_repetition(state, bootstrap, connection, guardian, candidates, options.group) for _ in range(options.repetitions)]
    best = ["calls_per_second", "stream_per_second"]
    ratios = [one["kafka_per_second"] / max(one[name] for name in best) for one in done]
    last = done[-1]
    return {
        "model": model,
        "candidates": candidates,
        "group": options.group,
        "kafka_candidates_per_second": round(statistics.median(one["kafka_per_second"] for one in done), 1),
        "grpc_calls_candidates_per_second": round(statistics.median(one["calls_per_second"] for one in done), 1),
        "grpc_stream_candidates_per_second": round(statistics.median(one["stream_per_second"] for one in done), 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "kafka_cpu_ms_per_candidate": round(statistics.median(one["kafka_cpu_ms"] for one in done), 4),
        "grpc_calls_cpu_ms_per_candidate": round(statistics.median(one["calls_cpu_ms"] for one in done), 4),
        "grpc_stream_cpu_ms_per_candidate": round(statistics.median(one["stream_cpu_ms"] for one in done), 4),
        "max_relative_difference": max(one["difference"] for one in done),
        "memory": last["memory"],
        "over_time": last["over_time"],
        "repetitions": options.repetitions,
    }


def _repetition(
    state: Path, bootstrap: str, connection: KafkaConnection, guardian: Guardian, candidates: int, group: int
) -> dict[str, Any]:
    requests = Requests(candidates=candidates, group=group, model="rm", run=uuid.uuid4().hex)
    publish(connection, requests)
    reader = Reader(connection)
    service = Service(state, bootstrap, guardian)
    try:
        service.wait()
        ways: dict[str, Callable[[], Answers]] = {
            "kafka": lambda: reader.read(requests),
            "calls": lambda: asyncio.run(call(service.target, requests)),
            "stream": lambda: asyncio.run(stream(service.target, requests)),
        }
        found: dict[str, Any] = {}
        answers: dict[str, Answers] = {}
        for name, way in ways.items():
            watch = Watch(service.process, service.metrics)
            with watch.watching():
                answers[name] = way()
            found[f"{name}_per_second"] = answers[name].candidates_per_second()
            found[f"{name}_cpu_ms"] = 1000 * watch.cpu_seconds / candidates
            memory = watch.memory()
            if name == "kafka":
                found |= {"memory": memory, "over_time": watch.few()}
            said = ", ".join(f"{key} {value:.0f}" for key, value in memory.items())
            print(f"{time.strftime('%H:%M:%S')} {state.name} {name}: {found[f'{name}_per_second']:.0f}/s; {said}", file=sys.stderr)
    finally:
        service.process.stop()
        reader.close()
    found["difference"] = max(answers["kafka"].largest_difference(answers[name]) for name in ("calls", "stream"))
    return found


def _folder(model: str, models: Path, state: Path) -> Path:
    if model != "bag_of_words":
        return checkpoint(model, models)
    folder = state / "words"
    fit_bag_of_words(generate_pairs(400, seed=0), seed=0).save(folder)
    return folder


def _print(found: dict[str, Any], console: Console) -> None:
    table = Table(title="Candidates a second: through the topics, and over gRPC on the same process")
    ways, memory = ("kafka", "calls", "stream"), ("MiB: start", "most", "end")
    for title in ("model", "candidates", *ways, "ratio", "aim", *(f"{way}, CPU ms" for way in ways), *memory):
        table.add_column(title, justify="left" if title == "model" else "right")
    for row in found["rows"]:
        low, high = row["ratio_range"]
        table.add_row(
            row["model"],
            str(row["candidates"]),
            *(f"{row[f'{way}_candidates_per_second']:.0f}" for way in ("kafka", "grpc_calls", "grpc_stream")),
            f"{row['ratio']:.2f} ({low:.2f}-{high:.2f})",
            f"≥ {AIM} {'reached' if row['ratio'] >= AIM else 'missed'}",
            *(f"{row[f'{way}_cpu_ms_per_candidate']:.2f}" for way in ("kafka", "grpc_calls", "grpc_stream")),
            *(f"{row['memory'][name]:.0f}" for name in ("start_mib", "most_mib", "end_mib")),
        )
    console.print(table)
    machine = found["machine"]
    console.print(f"{machine['processor']}, {machine['cores']} cores; load {machine['load_before']} before, {machine['load_after']} after")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench-reward-kafka", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=0, help="of each repetition; by default what each model does in some seconds")
    parser.add_argument("--group", type=int, default=8, help="candidates of a request")
    parser.add_argument("--models", nargs="+", choices=_MODELS, default=list(_MODELS), help="with which models")
    parser.add_argument("--repetitions", type=int, default=3, help="with each model")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder for models and results")
    options = parser.parse_args()
    options.out = options.out.resolve()
    return options


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
