"""From inputs to token ids for any model with a chat tokenizer: rendered, tokenised whole, cut."""

from __future__ import annotations

from collections.abc import Sequence

from assay_data.conversations import Message
from assay_kit.errors import AssayError, InvalidArgument
from assay_reward.inputs import RawText, ScoreInput, TextAnswer, TokenAnswer, Tokens, Truncation
from assay_reward.models.base import Prepared, Rendered
from assay_reward.models.chat_text import ChatText, shared_prefix


class ChatInputs:
    """`prepare` and `render` of a `RewardModel`, by its tokenizer."""

    def __init__(self, chat: ChatText, *, kind: str) -> None:
        """Takes the tokenizer and the name of the family, for messages."""
        self._chat = chat
        self._kind = kind

    def prepare(self, inputs: Sequence[ScoreInput], truncation: Truncation) -> list[Prepared | AssayError]:
        """Renders, tokenises and cuts; contexts that inputs share are rendered once."""
        texts: dict[str, None] = {}
        openings: dict[tuple[Message, ...], str | AssayError] = {}
        wholes: list[str | AssayError] = []
        for item in inputs:
            opening: str | AssayError = ""
            whole: str | AssayError = ""
            if isinstance(item, TextAnswer | TokenAnswer):
                if item.context not in openings:
                    openings[item.context] = self._rendered(item.context, open_turn=True)
                opening = openings[item.context]
            if isinstance(item, TextAnswer) and isinstance(opening, str):
                whole = self._rendered((*item.context, Message("assistant", item.text)), open_turn=False)
            elif isinstance(opening, AssayError):
                whole = opening
            wholes.append(whole)
            texts.update(dict.fromkeys(text for text in (opening, whole) if isinstance(text, str) and text))
        ids = dict(zip(texts, self._chat.ids(list(texts)), strict=True))
        prepared: list[Prepared | AssayError] = []
        for item, whole in zip(inputs, wholes, strict=True):
            if isinstance(whole, AssayError):
                prepared.append(InvalidArgument(item.field, whole.violations[0][1]) if isinstance(whole, InvalidArgument) else whole)
                continue
            try:
                prompt, response = self._split(item, whole, openings, ids)
                prepared.append(self._chat.cut(prompt, response, truncation, item.field))
            except InvalidArgument as error:
                prepared.append(error)
        return prepared

    def render(self, conversation: tuple[Message, ...], truncation: Truncation) -> Rendered:
        """What the model would see; a conversation that does not end with an answer is shown up to where one would begin."""
        answered = conversation[-1].role == "assistant"
        context = conversation[:-1] if answered else conversation
        opening = self._chat.render(context, open_turn=True) if context else ""
        text = self._chat.render(conversation, open_turn=False) if answered else opening
        whole, prompt = self._chat.ids([text, opening])
        border = shared_prefix(whole, prompt)
        cut = self._chat.cut(whole[:border], whole[border:], truncation, "messages")
        warnings = self._chat.warnings(text, whole, conversation)
        return Rendered(text=text, ids=cut.ids, truncated=cut.tokens_dropped > 0, warnings=warnings)

    def _rendered(self, messages: tuple[Message, ...], *, open_turn: bool) -> str | AssayError:
        try:
            return self._chat.render(messages, open_turn=open_turn) if messages else ""
        except AssayError as error:
            return error

    def _split(
        self,
        item: ScoreInput,
        whole: str,
        openings: dict[tuple[Message, ...], str | AssayError],
        ids: dict[str, list[int]],
    ) -> tuple[Sequence[int], Sequence[int]]:
        if isinstance(item, Tokens):
            return item.context_ids, item.ids
        if isinstance(item, RawText):
            return (), self._chat.raw_ids(item.text)
        if not isinstance(item, TextAnswer | TokenAnswer):
            raise InvalidArgument(item.field, f"a {self._kind} cannot score this")
        opening = openings[item.context]
        prompt: Sequence[int] = ids.get(opening, ()) if isinstance(opening, str) else ()
        if isinstance(item, TokenAnswer):
            return prompt, item.ids
        answered = ids[whole]
        border = shared_prefix(answered, prompt)
        return answered[:border], answered[border:]
