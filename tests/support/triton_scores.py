"""tritonclient's own gRPC client against the reward service: python triton_scores.py TARGET.

Runs where tritonclient is importable, reads {"texts": […], "prompt": …, "responses": […]} from its input and prints what came back. A
process of its own, because tritonclient brings its own copy of the protocol's messages, of which a process takes one.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException


def tensor(name: str, texts: list[str]) -> InferInput:
    array = np.array([text.encode() for text in texts], dtype=np.object_)
    made = InferInput(name, list(array.shape), "BYTES")
    made.set_data_from_numpy(array)
    return made


def refusal(call) -> list[str]:
    try:
        call()
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return ["OK", ""]


def main(target: str) -> None:
    asked = json.load(sys.stdin)
    with InferenceServerClient(target) as client:
        inputs = [tensor("text", asked["texts"])]
        scored = client.infer("rm", inputs, request_id="seven", outputs=[InferRequestedOutput("score")])
        answered = client.infer("rm", [tensor("prompt", [asked["prompt"]]), tensor("responses", asked["responses"])])
        metadata = client.get_model_metadata("rm", as_json=True)
        found = {
            "version": version("tritonclient"),
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "models": [client.is_model_ready("rm"), client.is_model_ready("nobody")],
            "server": client.get_server_metadata(as_json=True)["name"],
            "inputs": [one["name"] for one in metadata["inputs"]],
            "type": str(scored.as_numpy("score").dtype),
            "scores": scored.as_numpy("score").tolist(),
            "answers": answered.as_numpy("score").tolist(),
            "id": scored.get_response().id,
            "unknown": refusal(lambda: client.infer("nobody", inputs)),
            "numbers": refusal(lambda: client.infer("rm", [InferInput("text", [1], "FP32").set_data_from_numpy(np.ones(1, np.float32))])),
            "priority": refusal(lambda: client.infer("rm", inputs, priority=1)),
            "late": refusal(lambda: client.infer("rm", inputs, client_timeout=1e-6)),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
