"""Generation servers on loopback that speak the published wires: OpenAI's API as vLLM has it, and TGI's own.

They stand for other people's programs at the edge of the system: what they say is a function of the request, so that tests
can foretell it, and every request is kept.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Behaviour:
    """How a server behaves."""

    knows_n: bool = True
    fails_with: tuple[int, dict[str, Any]] | None = None
    """Status and body of every answer to a request for text."""
    refuses: str = ""
    """A prompt that contains this text is refused, as one that is too long is."""
    delay_s: float = 0.0
    adds_bos: bool = False
    """Whether TGI's tokenizer puts a BOS in front of a prompt that has one already."""
    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    """Path, body and headers (lower case) of each request."""

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [body for where, body, _ in self.requests if where == path]


class _Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._note({})
        self._answer(*self.get(self.path))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._note(body)
        if self.path in self.text_paths:
            time.sleep(self.behaviour.delay_s)
            if self.behaviour.fails_with is not None:
                return self._answer(*self.behaviour.fails_with)
        self._answer(*self.post(self.path, body))

    def log_message(self, *args: Any) -> None:
        pass

    def _note(self, body: dict[str, Any]) -> None:
        self.behaviour.requests.append((self.path, body, {name.lower(): value for name, value in self.headers.items()}))

    def _answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _OpenAI(_Handler):
    text_paths = ("/v1/chat/completions", "/v1/completions")

    def get(self, path: str) -> tuple[int, Any]:
        if path != "/v1/models":
            return 404, {"error": {"message": "no such route"}}
        models = [{"id": name, "object": "model", "created": 1, "owned_by": "vllm", "max_model_len": 2048} for name in ("tiny", "other")]
        return 200, {"object": "list", "data": models}

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        chat = path == "/v1/chat/completions"
        said = body["messages"][-1]["content"] if chat else body["prompt"]
        if self.behaviour.refuses and self.behaviour.refuses in said:
            error = {"message": "maximum context length is 2048 tokens", "type": "BadRequestError", "param": None, "code": 400}
            return 400, {"error": error}
        wanted = body.get("n", 1) if self.behaviour.knows_n else 1
        choices = []
        for index in range(wanted):
            choice: dict[str, Any] = {"index": index, "finish_reason": "stop" if index % 2 == 0 else "length", "logprobs": None}
            text = f"to {said!r} by seed {body['seed'] + index}"
            if chat:
                choice["message"] = {"role": "assistant", "content": text}
                if body.get("logprobs"):
                    choice["logprobs"] = {"content": [{"token": t, "logprob": -0.5, "top_logprobs": []} for t in ("a", "b", "c")]}
            else:
                choice["text"] = f" {text}"
                if "logprobs" in body:
                    choice["logprobs"] = {
                        "tokens": ["a", "b"],
                        "token_logprobs": [-1.0, -0.25],
                        "text_offset": [0, 1],
                        "top_logprobs": None,
                    }
            choices.append(choice)
        usage = {"prompt_tokens": 7, "completion_tokens": 3 * wanted, "total_tokens": 7 + 3 * wanted}
        kind = "chat.completion" if chat else "text_completion"
        return 200, {"id": "x", "object": kind, "created": 1, "model": body["model"], "choices": choices, "usage": usage}


class _Tgi(_Handler):
    text_paths = ("/generate",)

    def get(self, path: str) -> tuple[int, Any]:
        if path != "/info":
            return 404, {}
        return 200, {"model_id": "org/tiny", "max_input_tokens": 1024, "max_total_tokens": 1536, "version": "3.3.7", "router": "tgi"}

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/chat_tokenize":
            text = "<s>" + "".join(f"[{message['role']}] {message['content']}\n" for message in body["messages"])
            return 200, {"tokenize_response": _tokens(text), "templated_text": text}
        if path == "/tokenize":
            extra = [{"id": 1, "text": "<s>", "start": 0, "stop": 0}] if self.behaviour.adds_bos else []
            return 200, extra + _tokens(body["inputs"])
        parameters = body["parameters"]
        if self.behaviour.refuses and self.behaviour.refuses in body["inputs"]:
            return 422, {"error": "Input validation error: `inputs` must have less than 1024 tokens", "error_type": "validation"}
        if parameters.get("temperature") == 0 or parameters.get("top_p") == 1:
            return 422, {"error": "Input validation error: out of range", "error_type": "validation"}
        stop = (parameters.get("stop") or [None])[0]
        text = f" seed {parameters.get('seed')}{stop or ''}"
        tokens = [{"id": 40 + i, "text": "x", "logprob": -0.5, "special": False} for i in range(3)]
        if not stop:
            tokens.append({"id": 2, "text": "</s>", "logprob": -0.125, "special": True})
        details = {
            "finish_reason": "stop_sequence" if stop else "eos_token",
            "generated_tokens": len(tokens),
            "seed": parameters.get("seed"),
            "prefill": [],
            "tokens": tokens,
        }
        return 200, {"generated_text": text, "details": details}


def _tokens(text: str) -> list[dict[str, Any]]:
    words = [{"id": 1, "text": "<s>", "start": 0, "stop": 3}]
    return words + [{"id": 10 + i, "text": c, "start": 3 + i, "stop": 4 + i} for i, c in enumerate(text[3:])]


class _Server(ThreadingHTTPServer):
    """Ends its open connections with itself, as a process that ends does."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: list[socket.socket] = []

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.append(request)
        super().process_request(request, client_address)

    def server_close(self) -> None:
        super().server_close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def _serving(handler: type[_Handler], behaviour: Behaviour) -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), type(handler.__name__, (handler,), {"behaviour": behaviour}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def openai_server(behaviour: Behaviour):
    """Serves while open; gives its address."""
    return _serving(_OpenAI, behaviour)


def tgi_server(behaviour: Behaviour):
    """Serves while open; gives its address."""
    return _serving(_Tgi, behaviour)
