"""Tensors of the Open Inference Protocol: what goes in as texts, and what comes out as numbers."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from assay.common.v1 import common_pb2
from assay.inference.v2 import open_inference_pb2 as pb
from assay.reward.v1 import reward_pb2
from assay_kit.errors import InvalidArgument
from assay_reward.requests import MAX_ITEMS, Violations

TEXT, PROMPT, RESPONSE = "text", "prompt", "response"
SCORE, WIN_PROBABILITY = "score", "win_probability"

_NAMES = {TEXT: TEXT, PROMPT: PROMPT, RESPONSE: RESPONSE, "responses": RESPONSE}
_WANTED = 'BYTES "text" [n] is wanted, or BYTES "prompt" [1] or [n] with BYTES "response" [n]'


def items_of(request: pb.ModelInferRequest) -> tuple[list[reward_pb2.ScoreItem], str]:
    """The answers to be scored, and the name of the input that holds them.

    Raises:
        InvalidArgument: an input is missing, unknown, of another type or shape, or not UTF-8.
    """
    found = Violations()
    _refuse_parameters(request.parameters, "parameters", found)
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        found.add("raw_input_contents", f"there are {len(raw)} for {len(request.inputs)} inputs; one for each is wanted")
        found.check()
    texts: dict[str, list[str]] = {}
    called: dict[str, str] = {}
    for index, tensor in enumerate(request.inputs):
        path = f"inputs[{index}]"
        name = _NAMES.get(tensor.name)
        if name is None or name in texts:
            found.add(f"{path}.name", f"{tensor.name!r} is {'there twice' if name else 'unknown'}; {_WANTED}")
            continue
        _refuse_parameters(tensor.parameters, f"{path}.parameters", found)
        called[name] = tensor.name
        texts[name] = _texts(tensor, raw[index] if raw else None, path, found)
    found.check()
    if set(texts) == {TEXT}:
        return [reward_pb2.ScoreItem(raw_text=text) for text in texts[TEXT]], TEXT
    if set(texts) != {PROMPT, RESPONSE}:
        raise InvalidArgument("inputs", f"there is {' and '.join(called.values()) or 'none'}; {_WANTED}")
    prompts, responses = texts[PROMPT], texts[RESPONSE]
    if len(prompts) not in (1, len(responses)):
        raise InvalidArgument(PROMPT, f"has {len(prompts)} elements for {len(responses)} of {called[RESPONSE]}; one is wanted, or as many")
    if len(prompts) == 1:
        prompts = prompts * len(responses)
    return [_turns(prompt, response) for prompt, response in zip(prompts, responses, strict=True)], called[RESPONSE]


def wanted_outputs(request: pb.ModelInferRequest) -> list[str]:
    """Names of the outputs that are wanted; empty where all are.

    Raises:
        InvalidArgument: one is unknown.
    """
    found = Violations()
    for index, output in enumerate(request.outputs):
        if output.name not in (SCORE, WIN_PROBABILITY):
            found.add(f"outputs[{index}].name", f"{output.name!r} is unknown; {SCORE!r} or {WIN_PROBABILITY!r} is wanted")
        _refuse_parameters(output.parameters, f"outputs[{index}].parameters", found)
    found.check()
    return [output.name for output in request.outputs]


def add_output(response: pb.ModelInferResponse, name: str, values: Sequence[float], *, raw: bool) -> None:
    """Adds an FP64 tensor [n], raw or as a list of numbers."""
    tensor = response.outputs.add(name=name, datatype="FP64", shape=[len(values)])
    if raw:
        response.raw_output_contents.append(struct.pack(f"<{len(values)}d", *values))
    else:
        tensor.contents.fp64_contents.extend(values)


def _texts(tensor: pb.ModelInferRequest.InferInputTensor, raw: bytes | None, path: str, found: Violations) -> list[str]:
    if tensor.datatype != "BYTES":
        found.add(f"{path}.datatype", f"{tensor.datatype or 'nothing'} is no text; BYTES is wanted")
        return []
    shape = list(tensor.shape)
    if len(shape) not in (1, 2) or not 1 <= shape[0] <= MAX_ITEMS or shape[1:] not in ([], [1]):
        found.add(f"{path}.shape", f"{shape} is wrong; [n] or [n, 1] is wanted, n from 1 to {MAX_ITEMS}")
        return []
    if raw is not None and tensor.HasField("contents"):
        found.add(f"{path}.contents", "is set beside raw_input_contents; one of the two is wanted")
        return []
    elements = _split(raw) if raw is not None else list(tensor.contents.bytes_contents)
    if elements is None or len(elements) != shape[0]:
        there = (
            "is not cut into elements of four bytes of length and as many bytes" if elements is None else f"has {len(elements)} elements"
        )
        found.add(
            f"{path}.contents" if raw is None else "raw_input_contents", f"{tensor.name} {there}; {shape[0]} are wanted, by its shape"
        )
        return []
    return [_decoded(element, f"{tensor.name}[{index}]", found) for index, element in enumerate(elements)]


def _split(raw: bytes) -> list[bytes] | None:
    """The elements of a BYTES tensor; None where lengths and bytes do not come out even."""
    elements, at = [], 0
    while at < len(raw):
        if at + 4 > len(raw):
            return None
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if end > len(raw):
            return None
        elements.append(raw[at + 4 : end])
        at = end
    return elements


def _decoded(element: bytes, path: str, found: Violations) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError as error:
        found.add(path, f"is not UTF-8: byte {error.start} is {element[error.start]:#04x}")
        return ""


def _turns(prompt: str, response: str) -> reward_pb2.ScoreItem:
    messages = [
        common_pb2.Message(role=common_pb2.ROLE_USER, content=prompt),
        common_pb2.Message(role=common_pb2.ROLE_ASSISTANT, content=response),
    ]
    return reward_pb2.ScoreItem(conversation=common_pb2.Conversation(messages=messages))


def _refuse_parameters(parameters: Mapping[str, pb.InferParameter], path: str, found: Violations) -> None:
    """A parameter that is not understood may change what is meant, so it is not passed over."""
    for name in sorted(parameters):
        found.add(f"{path}[{name}]", "is not known here; no parameter is")
