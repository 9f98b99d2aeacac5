"""How a call's inputs are cut: into parts for the tokenizer and units for the device; and how large they are."""

from __future__ import annotations

from collections.abc import Sequence

from assay_data.conversations import Message
from assay_reward.inputs import RawText, ScoreInput, TextAnswer, TokenAnswer, Tokens
from assay_reward.models.base import Prepared, RewardModel

UNIT_CANDIDATES = 64
"""Most candidates of one unit of work: what a call of higher priority may have to wait for."""
_PART_CANDIDATES = 256
_PART_BYTES = 256 * 1024
_BYTES_PER_ID = 4


def units(model: RewardModel, items: Sequence[Prepared], batch_tokens: int) -> list[Sequence[Prepared]]:
    """Inputs in request order, in units that fit a batch; one input that does not is a unit by itself."""
    if len(items) == 1 or (len(items) <= UNIT_CANDIDATES and cost_of(model, items) <= batch_tokens):
        return [items]
    middle = len(items) // 2
    return units(model, items[:middle], batch_tokens) + units(model, items[middle:], batch_tokens)


def cost_of(model: RewardModel, items: Sequence[Prepared]) -> int:
    """Tokens of a batch that inputs take; at least one each."""
    return max(model.cost(items), len(items))


def text_bytes(inputs: Sequence[ScoreInput]) -> int:
    """Bytes of inputs' texts in UTF-8, four for a token id; of a context that inputs share, once."""
    contexts = {id(item.context): item.context for item in inputs if isinstance(item, TextAnswer | TokenAnswer)}
    context_ids = {id(item.context_ids): item.context_ids for item in inputs if isinstance(item, Tokens)}
    shared = sum(map(_context_bytes, contexts.values())) + _BYTES_PER_ID * sum(map(len, context_ids.values()))
    return shared + sum(map(_answer_bytes, inputs))


def _context_bytes(context: tuple[Message, ...]) -> int:
    return sum(len(turn.content.encode()) for turn in context)


def _answer_bytes(item: ScoreInput) -> int:
    match item:
        case TextAnswer(text=text) | RawText(text=text):
            return len(text.encode())
        case TokenAnswer(ids=ids) | Tokens(ids=ids):
            return _BYTES_PER_ID * len(ids)
        case _:
            raise TypeError(f"{type(item).__name__} is no input that is known here")


def whole_bytes(item: ScoreInput) -> int:
    """With its context: what the tokenizer reads of one input."""
    match item:
        case TextAnswer(context=context) | TokenAnswer(context=context):
            return _context_bytes(context) + _answer_bytes(item)
        case Tokens(context_ids=ids):
            return _BYTES_PER_ID * len(ids) + _answer_bytes(item)
        case _:
            return _answer_bytes(item)


def parts(inputs: Sequence[ScoreInput]) -> list[range]:
    """Places of inputs that are tokenised together: bounded in number and, but for a single one, in bytes."""
    cut: list[range] = []
    first = size = 0
    for index, item in enumerate(inputs):
        more = whole_bytes(item)
        if index > first and (index - first == _PART_CANDIDATES or size + more > _PART_BYTES):
            cut.append(range(first, index))
            first, size = index, 0
        size += more
    return [*cut, range(first, len(inputs))] if inputs else []
