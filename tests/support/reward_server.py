"""The real reward service for tests of its clients: in a thread, or in a process that can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from assay_client import RewardClient
from assay_data.bag_of_words import fit_bag_of_words
from assay_data.generated import generate_pairs
from assay_kit.server import running
from assay_reward.app import reward_app
from assay_reward.settings import RewardSettings


def write_word_model(folder: Path, seed: int = 0) -> Path:
    """A bag of words fitted on generated pairs: scores thousands of answers a second."""
    fit_bag_of_words(generate_pairs(200, seed=seed), seed=seed).save(folder)
    return folder


@contextlib.contextmanager
def reward_in_thread(data_dir: Path, models: Mapping[str, Path], **settings: Any) -> Iterator[str]:
    """Serves the models while open, the first one as the default too; gives host:port."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    stop = asyncio.Event()
    target = ""

    async def serve() -> None:
        nonlocal target
        async with running(reward_app(RewardSettings(data_dir=data_dir, drain_seconds=0, **settings))) as where:
            target = where
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(60), "the service did not start"
        load(target, models)
        yield target
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


class RewardProcess:
    """`python -m assay_reward` at one address."""

    def __init__(self, data_dir: Path, models: Mapping[str, Path]) -> None:
        data_dir.mkdir(parents=True)
        self._endpoint = data_dir / "endpoint.json"
        self._log = data_dir / "log.txt"
        self._models = models
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "ASSAY_DATA_DIR": str(data_dir)}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "assay_reward"], env=environment, stdout=log, stderr=log)

    @property
    def endpoint(self) -> dict[str, Any]:
        """Addresses and process id, once it serves."""
        return json.loads(self._endpoint.read_text())

    def target(self) -> str:
        """Waits until it serves its models; gives host:port."""
        until = time.monotonic() + 180
        while not self._endpoint.exists():
            assert self._process.poll() is None and time.monotonic() < until, self._log.read_text()
            time.sleep(0.05)
        target: str = json.loads(self._endpoint.read_text())["grpc"]
        load(target, self._models)
        return target

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def reward_processes(data_dir: Path, *models: Mapping[str, Path]) -> Iterator[list[RewardProcess]]:
    """One process for each set of models, all started at once."""
    processes: list[RewardProcess] = []
    try:
        for number, one in enumerate(models):
            processes.append(RewardProcess(data_dir / f"service-{number}", one))
        yield processes
    finally:
        for process in processes:
            process.kill()


def load(target: str, models: Mapping[str, Path]) -> None:
    with RewardClient.connect(target) as client:
        for name, folder in models.items():
            client.load_model(name, str(folder))
        if models and not any("default" in model.aliases for model in client.list_models()):
            client.set_alias("default", next(iter(models)))
