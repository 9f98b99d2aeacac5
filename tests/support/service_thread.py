"""An App of assay_kit served from a thread, for tests of synchronous clients."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from assay_kit.server import App, Door, running
from assay_kit.settings import ServiceSettings


@contextlib.contextmanager
def served(doors: Sequence[Door], data_dir: Path, *, port: int = 0) -> Iterator[str]:
    """Serves the doors while open, at a free port unless one is given; gives host:port."""
    settings = ServiceSettings(data_dir=data_dir, grpc_port=port, drain_seconds=0)
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    stop = asyncio.Event()
    target = ""

    async def serve() -> None:
        nonlocal target
        async with running(App(name="test", settings=settings, doors=doors)) as where:
            target = where
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(20), "the server did not start"
        yield target
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
