"""A server that answers as a chat model does that was asked which of two answers is better: the longer one, or the first of two like ones.

It stands in for the judge's language model, which is somebody else's server, not for ours: the reward service asks it as it asks any.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_ANSWER = re.compile(r"^BEGIN ANSWER [AB] [0-9a-f]{16}\n(.*?)\nEND ANSWER", re.DOTALL | re.MULTILINE)
_ALIKE = 12
"""Characters by which answers differ that it does not tell apart; then it takes the one it was shown first, whichever that is."""


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        first, second = _ANSWER.findall(asked["messages"][1]["content"])
        verdict = "A" if len(first) >= len(second) - _ALIKE else "B"
        message = {"role": "assistant", "content": f"Verdict: [[{verdict}]]"}
        body = json.dumps(
            {
                "id": "verdict",
                "object": "chat.completion",
                "created": 0,
                "model": asked["model"],
                "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def judge(folder: Path) -> Iterator[Path]:
    """Serves while the context is open; gives the folder of a reward model that asks it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    folder.mkdir(parents=True)
    address = f"http://127.0.0.1:{server.server_port}/v1"
    declared = {"base_url": address, "model": "a-judge", "mode": "pairwise", "temperature": 0, "max_tokens": 16}
    (folder / "generative_judge.json").write_text(json.dumps(declared))
    try:
        yield folder
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
