"""From conversations to token ids: the tokenizer's chat template, where prompt and response meet, and truncation.

A conversation is always rendered and tokenised whole, as it was in training: merges of a tokenizer may cross the border of
prompt and response.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from assay_data.conversations import Message
from assay_kit.errors import FailedPrecondition, InvalidArgument
from assay_reward.inputs import Truncation
from assay_reward.models.base import Prepared


class ChatText:
    """A tokenizer with its chat template and the limits of its model."""

    def __init__(self, tokenizer: Any, *, max_tokens: int, vocabulary: int) -> None:
        """Takes a Hugging Face tokenizer.

        Args:
            tokenizer: the model's own.
            max_tokens: longest input.
            vocabulary: rows of the model's embedding; ids are below it.
        """
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._vocabulary = vocabulary

    def render(self, messages: Sequence[Message], *, open_turn: bool) -> str:
        """The text of a conversation; with `open_turn` it ends where the assistant's next answer begins.

        Raises:
            FailedPrecondition: the tokenizer has no chat template.
            InvalidArgument: the template refuses the turns.
        """
        if not self._tokenizer.chat_template:
            raise FailedPrecondition("the model's tokenizer has no chat template; score raw_text or tokens instead, or add a template")
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=open_turn))
        except (TemplateError, TypeError, ValueError) as error:
            raise InvalidArgument("messages", f"the model's chat template refuses these turns: {error}") from error

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts that already hold all their special tokens, as a rendered template does."""
        return self._tokenizer(list(texts), add_special_tokens=False, truncation=False)["input_ids"] if texts else []

    def raw_ids(self, text: str) -> list[int]:
        """Token ids of plain text with the tokenizer's own special tokens around it; never two BOS."""
        ids = list(self._tokenizer(text, add_special_tokens=True, truncation=False)["input_ids"])
        return ids[1:] if self._doubled_bos(ids) else ids

    def cut(self, prompt: Sequence[int], response: Sequence[int], truncation: Truncation, field: str) -> Prepared:
        """The sequence, made to fit by the policy.

        Raises:
            InvalidArgument: it is empty, holds ids outside the vocabulary, is too long under ERROR, or does not fit however much
                of what the policy may drop is dropped.
        """
        total, limit = len(prompt) + len(response), self._max_tokens
        if not total:
            raise InvalidArgument(field, "there are no tokens; at least one is wanted")
        highest = max(max(prompt, default=0), max(response, default=0))
        if highest >= self._vocabulary:
            raise InvalidArgument(field, f"token id {highest} is outside the model's vocabulary; ids are 0..{self._vocabulary - 1}")
        over = total - limit
        if over > 0:
            if truncation is Truncation.PROMPT_LEFT and len(response) < limit:
                prompt = self._newest(prompt, limit - len(response))
            elif truncation is Truncation.RESPONSE_RIGHT and len(prompt) < limit:
                response = response[: limit - len(prompt)]
            else:
                raise InvalidArgument(field, self._too_long(len(prompt), len(response), truncation))
        return Prepared(ids=(*prompt, *response), prompt_tokens=len(prompt), response_tokens=len(response), tokens_dropped=max(over, 0))

    def warnings(self, text: str, ids: Sequence[int], messages: Sequence[Message]) -> tuple[str, ...]:
        """What is odd about a rendered conversation."""
        found = []
        tokenizer = self._tokenizer
        if self._doubled_bos(ids):
            found.append(f"doubled BOS: the text begins with {tokenizer.bos_token} twice")
        for index, message in enumerate(messages):
            inside = [token for token in tokenizer.all_special_tokens if token in message.content]
            if inside:
                found.append(f"messages[{index}].content holds the special token {inside[0]}, which is fed as such")
        if messages[-1].role == "assistant" and tokenizer.eos_token and not text.rstrip().endswith(tokenizer.eos_token):
            found.append(f"the chat template does not end the last turn with {tokenizer.eos_token}")
        return tuple(found)

    def _newest(self, prompt: Sequence[int], room: int) -> list[int]:
        """The last `room` tokens of a prompt; a BOS or CLS at its start keeps its place."""
        first = prompt[0]
        if first in (self._tokenizer.bos_token_id, self._tokenizer.cls_token_id):
            return [first, *prompt[len(prompt) - room + 1 :]]
        return list(prompt[len(prompt) - room :])

    def _doubled_bos(self, ids: Sequence[int]) -> bool:
        bos = self._tokenizer.bos_token_id
        return bos is not None and len(ids) > 1 and ids[0] == ids[1] == bos

    def _too_long(self, prompt: int, response: int, truncation: Truncation) -> str:
        said = f"{prompt} prompt and {response} response tokens are more than the {self._max_tokens} the model takes"
        if truncation is Truncation.ERROR:
            return f"{said}; shorten it, or ask for truncation PROMPT_LEFT or RESPONSE_RIGHT"
        kept = "response" if truncation is Truncation.PROMPT_LEFT else "prompt"
        return f"{said}, and {truncation.name} may not shorten the {kept}"


def shared_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Number of tokens two sequences begin with alike."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))
