"""Ten times more calls than the reward service can answer: what is still answered, and how fast the rest is refused.

    python tests/benchmarks/reward_overload.py [--seconds 20] [--times 10]

Starts the real service in a process of its own with a small random Llama, measures the peak in a closed loop, then offers `times`
as many calls a second, each on time whatever became of those before it (an open loop), each with a deadline. Prints goodput (calls
answered in time) against the peak, what became of the rest and how long a refusal took at the client, and the service's memory.
Exits 1 where goodput is below 0.9 of the peak.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.reward_server import reward_processes
from support.reward_service import group
from support.tiny_models import write_tiny_reward_model

from assay.reward.v1 import reward_pb2, reward_pb2_grpc

CANDIDATES = 8
IN_FLIGHT = 8
COMPUTE = "assay_reward_compute_seconds_sum"
SEQUENCES = "assay_reward_batch_sequences_sum"
WORDS = ("flour", "water", "salt", "yeast", "bake", "hour", "rise", "oven", "knead", "wait")


class Outcomes:
    """What became of calls, and how long each took at the client, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    async def call(self, stub: reward_pb2_grpc.RewardServiceStub, request: reward_pb2.ScoreGroupRequest, deadline: float) -> None:
        started = time.perf_counter()
        try:
            await stub.ScoreGroup(request, timeout=deadline)
            outcome = "OK"
        except grpc.aio.AioRpcError as error:
            outcome = error.code().name
        self.seconds.setdefault(outcome, []).append(time.perf_counter() - started)

    def percentile(self, outcome: str, percent: float) -> float:
        return float(np.percentile(self.seconds.get(outcome, [float("nan")]), percent)) * 1000


def requests(count: int) -> list[reward_pb2.ScoreGroupRequest]:
    """Groups of eight different answers of 10 to 40 words to different questions."""
    draws = np.random.default_rng(0)
    groups = []
    for number in range(count):
        texts = [" ".join(draws.choice(WORDS, size=draws.integers(10, 40))) for _ in range(CANDIDATES)]
        groups.append(group(texts, question=f"Question {number}: " + " ".join(draws.choice(WORDS, size=30))))
    return groups


async def closed(stub: reward_pb2_grpc.RewardServiceStub, load: list[reward_pb2.ScoreGroupRequest], seconds: float) -> float:
    """Groups a second with a fixed number of calls in flight."""
    outcomes = Outcomes()
    until = time.perf_counter() + seconds

    async def client(number: int) -> None:
        while time.perf_counter() < until:
            number = (number + IN_FLIGHT) % len(load)
            await outcomes.call(stub, load[number], 60)

    await asyncio.gather(*(client(number) for number in range(IN_FLIGHT)))
    return len(outcomes.seconds["OK"]) / seconds


async def opened(
    stub: reward_pb2_grpc.RewardServiceStub, load: list[reward_pb2.ScoreGroupRequest], *, rate: float, seconds: float, deadline: float
) -> Outcomes:
    """Calls at a fixed rate, however the service answers."""
    outcomes = Outcomes()
    calls: set[asyncio.Task[None]] = set()
    started = time.perf_counter()
    sent = 0
    while (now := time.perf_counter() - started) < seconds:
        for _ in range(int(now * rate) - sent):
            call = asyncio.ensure_future(outcomes.call(stub, load[sent % len(load)], deadline))
            calls.add(call)
            call.add_done_callback(calls.discard)
            sent += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(*calls)
    return outcomes


def metric(endpoint: dict[str, str], name: str) -> float:
    """A metric without labels, from the service's page."""
    page = urllib.request.urlopen(endpoint["metrics"], timeout=10).read().decode()
    return next(float(line.split()[1]) for line in page.splitlines() if line.startswith(name + " "))


def resident_mib(pid: int) -> float:
    """Memory of a process."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


async def sampled(pid: int, samples: list[float]) -> None:
    """Takes the memory of a process every half second, until it is cancelled."""
    while True:
        samples.append(resident_mib(pid))
        await asyncio.sleep(0.5)


async def measured(target: str, endpoint: dict[str, Any], options: argparse.Namespace) -> dict[str, float | dict[str, int]]:
    load, pid = requests(512), endpoint["pid"]
    async with grpc.aio.insecure_channel(target) as channel:
        stub = reward_pb2_grpc.RewardServiceStub(channel)
        await closed(stub, load, 2)
        peaks = [await closed(stub, load, options.peak_seconds)]
        before = resident_mib(pid)
        samples: list[float] = []
        sampling = asyncio.ensure_future(sampled(pid, samples))
        busy, sequences = metric(endpoint, COMPUTE), metric(endpoint, SEQUENCES)
        outcomes = await opened(stub, load, rate=options.times * peaks[0], seconds=options.seconds, deadline=options.deadline)
        sampling.cancel()
        busy = (metric(endpoint, COMPUTE) - busy) / options.seconds
        computed = (metric(endpoint, SEQUENCES) - sequences) / CANDIDATES / options.seconds
        peaks.append(await closed(stub, load, options.peak_seconds))
    peak = sum(peaks) / len(peaks)  # before and after: other work on the machine moves it
    answered = len(outcomes.seconds.get("OK", ())) / options.seconds
    calls = Counter({outcome: len(seconds) for outcome, seconds in outcomes.seconds.items()})
    return {
        "peak_groups_per_second": round(peak, 2),
        "peak_before_and_after": [round(one, 2) for one in peaks],
        "offered_groups_per_second": round(calls.total() / options.seconds, 1),
        "answered_groups_per_second": round(answered, 2),
        "goodput_ratio": round(answered / peak, 3),
        "computed_groups_per_second": round(computed, 2),
        "device_busy_ratio": round(busy, 3),
        "outcomes": dict(calls),
        "answer_p50_ms": round(outcomes.percentile("OK", 50), 1),
        "answer_p99_ms": round(outcomes.percentile("OK", 99), 1),
        "refusal_p50_ms": round(outcomes.percentile("RESOURCE_EXHAUSTED", 50), 1),
        "refusal_p99_ms": round(outcomes.percentile("RESOURCE_EXHAUSTED", 99), 1),
        "rss_before_mib": round(before, 1),
        "rss_highest_mib": round(max(samples), 1),
        "rss_after_mib": round(samples[-1], 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the overload")
    parser.add_argument("--times", type=float, default=10.0, help="calls offered, in multiples of the peak")
    parser.add_argument("--deadline", type=float, default=2.0, help="of each call in the overload, in seconds")
    parser.add_argument("--peak-seconds", type=float, default=8.0, help="length of each measurement of the peak")
    parser.add_argument("--hidden", type=int, default=128, help="width of the model, which has four layers")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_reward_model(Path(folder) / "model", hidden_size=options.hidden, layers=4)
        with reward_processes(Path(folder), {"rm": model}) as [service]:
            found = asyncio.run(measured(service.target(), service.endpoint, options))
    print(json.dumps(found, indent=2))
    return 0 if found["goodput_ratio"] >= 0.9 else 1  # type: ignore[operator]


if __name__ == "__main__":
    raise SystemExit(main())
