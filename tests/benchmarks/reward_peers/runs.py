"""The run: all servers of a model at once, measured in turn, so that what else the machine does hits them alike."""

from __future__ import annotations

import contextlib
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from benchmarks.reward_peers.checkpoints import chat_tokenizer
from benchmarks.reward_peers.loads import Lengths, Load, texts
from benchmarks.reward_peers.processes import NotStarted
from benchmarks.reward_peers.subjects import SUBJECTS, Assay, Bound, Measured, Missing, Subject, VllmCpu, score_request

from assay.reward.v1 import reward_pb2_grpc
from assay_cli.supervised import Guardian

_WARM_UP_SEED = 1000
_WARM_UP_PART = 4
_CHECKED = 16
_LONE = Load(
    name="lone",
    candidates=1,
    prompt=Lengths(median=20, sigma=0.1, least=15, most=25),
    response=Lengths(median=12, sigma=0.1, least=8, most=16),
    in_flight=1,
    groups={},
)


class WrongTokens(RuntimeError):
    """A peer reads other tokens than this service: nothing could be compared."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """What one subject gave for one load of one model."""

    subject: str
    load: str
    model: str
    dtype: str
    repetitions: list[Measured]


@dataclass(kw_only=True)
class Findings:
    """Of a whole run."""

    series: list[Series] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Peers that were left out, and why."""
    reference_error: dict[tuple[str, str], float] = field(default_factory=dict)
    """By model and load: largest relative difference of this service from transformers' own forward."""
    lone_ms: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By model: median of a lone small request over gRPC, and of the bare forward of the same text."""

    def of(self, subject: str, load: str, model: str) -> Series | None:
        """One series."""
        return next((one for one in self.series if (one.subject, one.load, one.model) == (subject, load, model)), None)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run."""

    subjects: Sequence[str]
    loads: Sequence[Load]
    dtype: str
    repetitions: int
    budget_seconds: float
    """Of one subject's repetitions of one load: when they are over, there are no more of them."""
    part: float
    """Of each load's texts."""


@contextlib.contextmanager
def started(names: Sequence[str], folder: Path, *, dtype: str, state: Path, findings: Findings) -> Iterator[list[Subject]]:
    """All subjects that can be had, each with the model."""
    guardian = Guardian()
    subjects: list[Subject] = []
    try:
        for name in names:
            subject = SUBJECTS[name]()
            try:
                subject.start(folder, dtype=dtype, state=state / name, guardian=guardian)
                subjects.append(subject)
            except Missing as missing:
                if str(missing) not in findings.missing:
                    findings.missing.append(str(missing))
        for subject in list(subjects):
            try:
                subject.wait()
            except NotStarted as error:
                if isinstance(subject, Assay | Bound):
                    raise
                findings.missing.append(f"{subject.name}: it did not start: {error}")
                subjects.remove(subject)
                subject.stop()
        yield subjects
    finally:
        for subject in subjects:
            subject.stop()
        guardian.close()


async def run(plan: Plan, model: str, subjects: Sequence[Subject], findings: Findings) -> None:
    """Measures all loads of a model."""
    await check_tokens(subjects)
    for load in plan.loads:
        count = max(1, round(load.groups[model] * plan.part))
        warm_up = texts(load, -(-count // _WARM_UP_PART), seed=_WARM_UP_SEED)
        for subject in subjects:
            await subject.measure(warm_up, in_flight=load.in_flight)
        found: dict[str, list[Measured]] = {subject.name: [] for subject in subjects}
        spent = dict.fromkeys(found, 0.0)
        for repetition in range(plan.repetitions):
            groups = texts(load, count, seed=repetition)
            for subject in random.Random(repetition).sample(list(subjects), len(subjects)):
                if spent[subject.name] > plan.budget_seconds:
                    continue
                measured = await subject.measure(groups, in_flight=load.in_flight)
                found[subject.name].append(measured)
                spent[subject.name] += measured.wall_seconds
        findings.series += [
            Series(subject=name, load=load.name, model=model, dtype=plan.dtype, repetitions=repetitions)
            for name, repetitions in found.items()
        ]
        bound = next((subject for subject in subjects if isinstance(subject, Bound)), None)
        if bound is not None and "assay" in found:
            checked = texts(load, count, seed=0)[:_CHECKED]
            wanted = [score for scores in bound.reference(checked) for score in scores]
            ours = [score for scores in found["assay"][0].scores[:_CHECKED] for score in scores]
            findings.reference_error[model, load.name] = relative_error(ours, wanted)
        print(
            f"{time.strftime('%H:%M:%S')} {model} {load.name}: " + ", ".join(f"{name} {spent[name]:.1f} s" for name in spent),
            file=sys.stderr,
        )


async def check_tokens(subjects: Sequence[Subject]) -> None:
    """Raises WrongTokens where the chat template here, this service and vLLM do not read the same ids."""
    group = texts(_LONE, 1, seed=7)[0]
    wanted = [list(ids) for ids in chat_tokenizer()(list(group.rendered), add_special_tokens=False)["input_ids"]]
    for subject in subjects:
        if isinstance(subject, Assay):
            found = subject.token_ids(group)
        elif isinstance(subject, VllmCpu):
            found = await subject.token_ids(group)
        else:
            continue
        if found != wanted:
            raise WrongTokens(f"{subject.name} reads {found}, and the chat template with the tokenizer gives {wanted}")


def lone_request(assay: Assay, bound: Bound, *, times: int) -> tuple[float, float]:
    """Median milliseconds of a lone small request over gRPC, and of the bare forward of the same text; taken in turn."""
    over_grpc, bare = [], []
    with grpc.insecure_channel(assay.target) as channel:
        stub = reward_pb2_grpc.RewardServiceStub(channel)
        for number, group in enumerate(texts(_LONE, times + 10, seed=3)):
            request = score_request(group)
            sent = time.perf_counter()
            stub.ScoreBatch(request, timeout=60)
            took = time.perf_counter() - sent
            forward = bound.forward_seconds(group)
            if number >= 10:
                over_grpc.append(1000 * took)
                bare.append(1000 * forward)
    return statistics.median(over_grpc), statistics.median(bare)


def relative_error(found: Sequence[float], wanted: Sequence[float]) -> float:
    """Largest difference, each relative to the score wanted or, where that is larger, to the spread of all of them.

    The spread is their standard deviation: a score near zero is as exact as its neighbours, and a difference relative to itself
    would say nothing.
    """
    spread = statistics.pstdev(wanted)
    return max(abs(one - other) / max(abs(other), spread, 1e-12) for one, other in zip(found, wanted, strict=True))
