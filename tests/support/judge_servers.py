"""An OpenAI-compatible chat server on loopback for judges: vLLM's wire, with answers that the test makes from the request."""

import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from support.generation_servers import Behaviour, _OpenAI, _serving

# A token and the probabilities of what might stand in its place.
Tokens = list[tuple[str, dict[str, float]]]


@dataclass
class Judge(Behaviour):
    """How a judge behaves."""

    says: Callable[[dict[str, Any]], str | Tokens] = lambda body: "[[A]]"
    """Its answer to a request."""
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Status and headers of the first answers."""
    gives_log_probs: bool = True
    """Whether it takes questions for log-probabilities."""
    holds: threading.Event | None = None
    """Answers wait for it."""
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self) -> list[dict[str, Any]]:
        return self.bodies("/v1/chat/completions")


class _JudgeHandler(_OpenAI):
    behaviour: Judge

    def do_POST(self) -> None:
        judge = self.behaviour
        with judge._lock:
            judge._at_once += 1
            judge.most_at_once = max(judge.most_at_once, judge._at_once)
        try:
            super().do_POST()
        finally:
            with judge._lock:
                judge._at_once -= 1

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        judge = self.behaviour
        if judge.holds is not None:
            judge.holds.wait(60)
        with judge._lock:
            failure = judge.failures.pop(0) if judge.failures else None
        if failure is not None:
            self._headers = failure[1]
            return failure[0], {"error": {"message": "not now", "type": "Busy", "param": None, "code": failure[0]}}
        if judge.refuses and judge.refuses in body["messages"][1]["content"]:
            return 400, {
                "error": {"message": "maximum context length is 2048 tokens", "type": "BadRequestError", "param": None, "code": 400}
            }
        if body.get("logprobs") and not judge.gives_log_probs:
            return 400, {"error": {"message": "logprobs are not supported", "type": "BadRequestError", "param": "logprobs", "code": 400}}
        said = judge.says(body)
        text = said if isinstance(said, str) else "".join(token for token, _ in said)
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": text},
        }
        if body.get("logprobs") and not isinstance(said, str):
            choice["logprobs"] = {"content": [_told(token, likely, body["top_logprobs"]) for token, likely in said]}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        return 200, {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice], "usage": usage}

    def end_headers(self) -> None:
        for name, value in getattr(self, "_headers", {}).items():
            self.send_header(name, value)
        self._headers: dict[str, str] = {}
        super().end_headers()


def _told(token: str, likely: dict[str, float], most: int) -> dict[str, Any]:
    likely = likely or {token: 1.0}
    ranked = sorted(likely.items(), key=lambda one: -one[1])[:most]
    top = [{"token": text, "logprob": math.log(share), "bytes": list(text.encode())} for text, share in ranked]
    return {"token": token, "logprob": math.log(likely[token]), "bytes": list(token.encode()), "top_logprobs": top}


@contextmanager
def judge_server(judge: Judge) -> Iterator[str]:
    """Serves while open; gives its address."""
    with _serving(_JudgeHandler, judge) as address:
        yield address


def shown(body: dict[str, Any]) -> dict[str, str]:
    """What a request shows the judge, by the names of its fences; checks that each is closed with the mark it was opened with."""
    found = re.findall(r"^BEGIN ([A-Z ]+) ([0-9a-f]{16})\n(.*?)\nEND \1 \2$", body["messages"][1]["content"], re.DOTALL | re.MULTILINE)
    assert len({mark for _, mark, _ in found}) == 1
    assert found[0][1] in body["messages"][0]["content"]
    return {name: text for name, _, text in found}


def better_by(score: Callable[[str], float]) -> Callable[[dict[str, Any]], str]:
    """A judge that holds the answers against each other by a score, whatever the order."""

    def says(body: dict[str, Any]) -> str:
        texts = shown(body)
        a, b = score(texts["ANSWER A"]), score(texts["ANSWER B"])
        return f"I have weighed both.\n\nVerdict: [[{'C' if a == b else 'A' if a > b else 'B'}]]"

    return says
