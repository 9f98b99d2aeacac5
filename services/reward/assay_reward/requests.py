"""From the messages of the contract to this service's own values, with every field checked."""

from __future__ import annotations

from typing import TypeVar

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2
from assay_data.conversations import Message
from assay_data.wire import messages_from_proto
from assay_kit.errors import AssayError, InvalidArgument
from assay_reward.inputs import Priority, RawText, Scale, ScoreInput, ScoreOptions, TextAnswer, TokenAnswer, Tokens, Truncation

T = TypeVar("T")

MAX_ITEMS = 4096
"""Most items of one batch, by the contract."""
MAX_ID_BYTES = 256
"""Longest id of a candidate, item or request, in bytes of UTF-8."""

_SCALES = {0: Scale.RAW, 1: Scale.RAW, 2: Scale.STANDARDIZED, 3: Scale.CALIBRATED, 4: Scale.LENGTH_CORRECTED}
_TRUNCATIONS = {0: Truncation.ERROR, 1: Truncation.ERROR, 2: Truncation.PROMPT_LEFT, 3: Truncation.RESPONSE_RIGHT}
_PRIORITIES = {0: Priority.NORMAL, 1: Priority.INTERACTIVE, 2: Priority.NORMAL, 3: Priority.BULK}


class Violations:
    """Gathers what is wrong with a request, so that the caller learns all of it at once."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    def add(self, field: str, description: str) -> None:
        """One more field that is wrong."""
        self._found.append((field, description))

    def check(self) -> None:
        """Raises InvalidArgument where there is any."""
        if self._found:
            raise InvalidArgument.many(self._found)


def options_of(options: reward_pb2.ScoreOptions, found: Violations, path: str = "options") -> ScoreOptions:
    """How to score."""
    return ScoreOptions(
        scale=_SCALES.get(options.scale) or _unknown(found, f"{path}.scale", options.scale, Scale.RAW),
        truncation=truncation_of(options.truncation, found, f"{path}.truncation"),
        priority=_PRIORITIES.get(options.priority) or _unknown(found, f"{path}.priority", options.priority, Priority.NORMAL),
    )


def truncation_of(value: int, found: Violations, path: str) -> Truncation:
    """What to do with input that is too long."""
    return _TRUNCATIONS.get(value) or _unknown(found, path, value, Truncation.ERROR)


def group_inputs(request: reward_pb2.ScoreGroupRequest, *, max_candidates: int, max_bytes: int, found: Violations) -> list[ScoreInput]:
    """The candidates of a group; nothing where its context is wrong."""
    check_id(request.request_id, "request_id", found)
    which = request.WhichOneof("context")
    turns: tuple[Message, ...] = ()
    if which is None:
        found.add("conversation", "is missing; the turns that the candidates answer are wanted, or context_tokens")
    elif which == "conversation":
        turns = _turns(request.conversation, "conversation", found)
        if turns and turns[-1].role == "assistant":
            found.add(f"conversation.messages[{len(turns) - 1}].role", "the last turn is the assistant's; the answers are the candidates'")
    elif not request.context_tokens.ids:
        found.add("context_tokens.ids", "is empty; at least one token id is wanted")
    count = len(request.candidates)
    if not 1 <= count <= max_candidates:
        found.add("candidates", f"there are {count}; 1 to {max_candidates} are wanted")
        return []
    context_ids = tuple(request.context_tokens.ids)
    context_bytes = _size(turns)
    inputs: list[ScoreInput] = []
    for index, candidate in enumerate(request.candidates):
        path = f"candidates[{index}]"
        check_id(candidate.id, f"{path}.id", found)
        body = candidate.WhichOneof("body")
        if body is None:
            found.add(f"{path}.text", "neither text nor tokens is set; an empty answer is text that is set and empty")
        elif body == "text" and which == "context_tokens":
            found.add(f"{path}.text", "is text where the context is token ids; give tokens, or the context as a conversation")
        elif body == "text" and context_bytes + len(candidate.text.encode()) > max_bytes:
            found.add(f"{path}.text", _too_large(context_bytes + len(candidate.text.encode()), max_bytes))
        elif body == "text":
            inputs.append(TextAnswer(id=candidate.id, path=path, field="text", context=turns, text=candidate.text))
        elif which == "context_tokens":
            ids = tuple(candidate.tokens.ids)
            inputs.append(Tokens(id=candidate.id, path=path, field="tokens", context_ids=context_ids, ids=ids))
        else:
            inputs.append(TokenAnswer(id=candidate.id, path=path, field="tokens", context=turns, ids=tuple(candidate.tokens.ids)))
    return inputs


def batch_inputs(
    request: reward_pb2.ScoreBatchRequest, *, max_items: int, max_bytes: int, found: Violations
) -> list[ScoreInput | AssayError]:
    """The items of a batch; one that is wrong is its own error and nobody else's."""
    check_id(request.request_id, "request_id", found)
    count = len(request.items)
    if not 1 <= count <= max_items:
        found.add("items", f"there are {count}; 1 to {max_items} are wanted")
        return []
    return [_item(item, f"items[{index}]", max_bytes) for index, item in enumerate(request.items)]


def rendered_turns(request: reward_pb2.RenderPromptRequest, *, max_bytes: int, found: Violations) -> tuple[Message, ...]:
    """The turns to be rendered."""
    turns = _turns(request.conversation, "conversation", found)
    if _size(turns) > max_bytes:
        found.add("conversation.messages", _too_large(_size(turns), max_bytes))
    return turns


def check_id(value: str, path: str, found: Violations) -> None:
    """Ids are echoed, so they are short."""
    if len(value.encode()) > MAX_ID_BYTES:
        found.add(path, f"has {len(value.encode())} bytes; at most {MAX_ID_BYTES} are wanted")


def _item(item: reward_pb2.ScoreItem, path: str, max_bytes: int) -> ScoreInput | AssayError:
    found = Violations()
    try:
        value = _item_value(item, path, max_bytes, found)
        found.check()
        return value
    except InvalidArgument as error:
        return error


def _item_value(item: reward_pb2.ScoreItem, path: str, max_bytes: int, found: Violations) -> ScoreInput:
    check_id(item.id, "id", found)
    which = item.WhichOneof("input")
    if which == "tokens":
        return Tokens(id=item.id, path=path, field="tokens", context_ids=(), ids=tuple(item.tokens.ids))
    if which == "raw_text":
        size = len(item.raw_text.encode())
        if size > max_bytes:
            found.add("raw_text", _too_large(size, max_bytes))
        return RawText(id=item.id, path=path, field="raw_text", text=item.raw_text)
    if which is None:
        raise InvalidArgument("conversation", "is missing; a conversation that ends with the answer is wanted, or tokens, or raw_text")
    turns = _turns(item.conversation, "conversation", found)
    if turns and turns[-1].role != "assistant":
        found.add(f"conversation.messages[{len(turns) - 1}].role", "the last turn must be the assistant's; it is what is scored")
    if _size(turns) > max_bytes:
        found.add("conversation.messages", _too_large(_size(turns), max_bytes))
    found.check()
    return TextAnswer(id=item.id, path=path, field="conversation", context=turns[:-1], text=turns[-1].content)


def _turns(conversation: common_pb2.Conversation, path: str, found: Violations) -> tuple[Message, ...]:
    if not conversation.messages:
        found.add(f"{path}.messages", "is empty; at least one turn is wanted")
    try:
        return messages_from_proto(conversation.messages, f"{path}.messages")
    except ValueError as error:
        field, _, description = str(error).partition(": ")
        found.add(field, description)
        return ()


def _size(turns: tuple[Message, ...]) -> int:
    return sum(len(turn.content.encode()) for turn in turns)


def _too_large(size: int, limit: int) -> str:
    return f"is {size} bytes of text with its conversation; at most {limit} are taken"


def _unknown(found: Violations, path: str, value: int, instead: T) -> T:
    found.add(path, f"{value} is none of the values of the contract")
    return instead
