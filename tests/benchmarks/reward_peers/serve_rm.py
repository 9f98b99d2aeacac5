"""What OpenRLHF's `serve_rm` does, written anew from its description: the model runs inside the event loop, one request at a time.

    python -m benchmarks.reward_peers.serve_rm MODEL DTYPE PORT

`POST /get_reward` takes `{"query": [text, …]}` and answers `{"rewards": [score, …]}`. A request's texts are padded on the left, in
micro-batches; requests never share one.
"""

from __future__ import annotations

import asyncio
import sys

import torch
from aiohttp import web
from benchmarks.reward_peers.padded import PaddedModel

MICRO_BATCH = 16
"""As its example script has it (`--batch_size 16`)."""


def application(model: PaddedModel) -> web.Application:
    """The server."""

    async def get_reward(request: web.Request) -> web.Response:
        queries = (await request.json())["query"]
        scores: list[float] = []
        for start in range(0, len(queries), MICRO_BATCH):
            scores += model.scores(queries[start : start + MICRO_BATCH])  # in the event loop, as there
        return web.json_response({"rewards": scores})

    async def health(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.add_routes([web.post("/get_reward", get_reward), web.get("/health", health)])
    return app


def main() -> None:
    folder, dtype, port = sys.argv[1:]
    torch.set_num_threads(1)
    loop = asyncio.new_event_loop()
    web.run_app(application(PaddedModel(folder, dtype, padding_side="left")), host="127.0.0.1", port=int(port), print=None, loop=loop)


if __name__ == "__main__":
    main()
