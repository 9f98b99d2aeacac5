"""From turns to token ids and back, through the model's own tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jinja2 import TemplateError

from assay_data.conversations import Message
from assay_kit.errors import InvalidArgument


class Renderer:
    """A tokenizer with its chat template."""

    def __init__(self, tokenizer: Any) -> None:
        """Takes a transformers tokenizer.

        Raises:
            InvalidArgument: it has no chat template.
        """
        if not tokenizer.chat_template:
            raise InvalidArgument("uri", "the tokenizer has no chat template; save one with it (chat_template.jinja)")
        self._tokenizer = tokenizer

    def text(self, turns: Sequence[Message]) -> str:
        """The prompt as the model sees it, open for the assistant's turn.

        Raises:
            InvalidArgument: the template refuses the conversation.
        """
        messages = [{"role": message.role, "content": message.content} for message in turns]
        try:
            return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            raise InvalidArgument("conversation", f"the model's chat template refuses it: {error}") from error

    def ids(self, turns: Sequence[Message]) -> list[int]:
        """Token ids of the prompt; special tokens are those that the template writes."""
        ids: list[int] = self._tokenizer(self.text(turns), add_special_tokens=False)["input_ids"]
        return ids

    def answer(self, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        """Text of an answer: without special tokens, cut before the first stop text, without the space the template puts in front."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return cut(text, stop).removeprefix(" ")

    def stop_test(self, stop: Sequence[str]) -> Callable[[Sequence[int]], bool] | None:
        """Says of the tokens so far whether their end completes a stop text; None where there are none to look for."""
        if not stop:
            return None
        # A token is at least one byte and a character at most four, so a stop text that has just been completed lies in this window.
        window = 4 * max(len(text) for text in stop) + 4

        def stopped(ids: Sequence[int]) -> bool:
            tail = self._tokenizer.decode(ids[-window:], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            return any(text in tail for text in stop)

        return stopped


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop text in it."""
    places = [place for place in (text.find(one) for one in stop) if place >= 0]
    return text[: min(places)] if places else text
