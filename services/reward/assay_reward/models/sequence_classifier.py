"""Hugging Face sequence classifiers with one label: the head's raw logit is the score.

The position that is read is the one `transformers` itself reads, found from each sequence's own tokens; padding is always to
the right and masked, so neither the tokenizer's padding side nor the company a sequence is in moves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from assay_data.conversations import Message
from assay_kit.errors import AssayError, InvalidArgument
from assay_reward.inputs import RawText, ScoreInput, TextAnswer, TokenAnswer, Tokens, Truncation
from assay_reward.models.base import Computed, LoadOptions, ModelKind, Prepared, Rendered
from assay_reward.models.chat_text import ChatText, shared_prefix

_NO_LIMIT = 1_000_000
_TOKENS_PER_FORWARD = 65_536
# Families whose positions start after the padding id, so that many fewer tokens fit.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "xmod", "data2vec-text")


class SequenceClassifier:
    """A sequence classifier in memory."""

    kind = "sequence_classifier"

    def __init__(self, model: Any, tokenizer: Any, options: LoadOptions) -> None:
        config = model.config.get_text_config()
        self.architecture = str(model.config.architectures[0])
        self.dtype = options.dtype
        self.max_input_tokens = _longest(config, tokenizer, options)
        self._model = model
        self._device = options.device
        self._chat = ChatText(tokenizer, max_tokens=self.max_input_tokens, vocabulary=config.vocab_size)
        pad = config.pad_token_id
        # Without a padding id of its own, transformers reads the last token, and only of one sequence at a time.
        self._pad = pad if pad is not None and 0 <= pad < config.vocab_size else None
        self._together = 1 if self._pad is None else options.sequences_per_forward

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

    def score(self, prepared: Sequence[Prepared]) -> Computed:
        """Forwards of a few sequences each, in the order given."""
        raw: list[float] = []
        padded = 0
        for few in self._forwards(prepared):
            longest = max(item.tokens for item in few)
            padded += longest * len(few) - sum(item.tokens for item in few)
            raw += self._forward(few, longest)
        return Computed(raw=tuple(raw), computed_tokens=sum(item.tokens for item in prepared), padded_tokens=padded)

    def _forward(self, few: Sequence[Prepared], longest: int) -> list[float]:
        fill = self._pad or 0
        ids = torch.tensor([[*item.ids, *[fill] * (longest - item.tokens)] for item in few], device=self._device)
        mask = torch.tensor([[1] * item.tokens + [0] * (longest - item.tokens) for item in few], device=self._device)
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=mask).logits
        return [float(value) for value in logits[:, 0].double().tolist()]

    def _forwards(self, prepared: Sequence[Prepared]) -> Iterator[list[Prepared]]:
        few: list[Prepared] = []
        longest = 0
        for item in prepared:
            longest = max(longest, item.tokens)
            if few and (len(few) == self._together or longest * (len(few) + 1) > _TOKENS_PER_FORWARD):
                yield few
                few, longest = [], item.tokens
            few.append(item)
        if few:
            yield few

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
            raise InvalidArgument(item.field, f"a {self.kind} cannot score this")
        opening = openings[item.context]
        prompt: Sequence[int] = ids.get(opening, ()) if isinstance(opening, str) else ()
        if isinstance(item, TokenAnswer):
            return prompt, item.ids
        answered = ids[whole]
        border = shared_prefix(answered, prompt)
        return answered[:border], answered[border:]


def _longest(config: Any, tokenizer: Any, options: LoadOptions) -> int:
    limits = [options.max_input_tokens] if options.max_input_tokens else []
    positions = getattr(config, "max_position_embeddings", None)
    if positions:
        offset = (config.pad_token_id or 0) + 1 if config.model_type in _OFFSET_POSITIONS else 0
        limits.append(int(positions) - offset)
    if 0 < tokenizer.model_max_length < _NO_LIMIT:
        limits.append(int(tokenizer.model_max_length))
    return min(limits, default=_NO_LIMIT)


def _load(folder: Path, options: LoadOptions) -> SequenceClassifier:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidArgument("uri", f"{folder / 'config.json'} is no model configuration that is known here: {_line(error)}") from error
    architecture = (config.architectures or ["none"])[0]
    if not architecture.endswith("ForSequenceClassification"):
        raise InvalidArgument("uri", f"the architecture is {architecture}; one that ends with ForSequenceClassification is wanted")
    if config.num_labels != 1:
        raise InvalidArgument("uri", f"the classifier has {config.num_labels} labels; a reward model has num_labels 1")
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, options.dtype), local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # what the readers of weights raise for a broken file is of many types
        raise InvalidArgument("uri", f"the weights in {folder} cannot be read: {_line(error)}") from error
    if report["missing_keys"]:
        raise InvalidArgument(
            "uri", f"the checkpoint lacks weights that {architecture} has: {', '.join(sorted(report['missing_keys'])[:5])}"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # likewise
        raise InvalidArgument("uri", f"the tokenizer in {folder} cannot be read: {_line(error)}") from error
    loaded = SequenceClassifier(model.to(options.device).eval(), tokenizer, options)
    _warm_up(loaded, tokenizer)
    return loaded


def _warm_up(model: SequenceClassifier, tokenizer: Any) -> None:
    """A first score: it settles what is made lazily, and shows weights that are not finite."""
    tokenizer(["warm-up"], add_special_tokens=False, truncation=False)
    raw = model.score([Prepared(ids=(1, 2, 3), prompt_tokens=1, response_tokens=2)]).raw[0]
    if not torch.isfinite(torch.tensor(raw)):
        raise InvalidArgument("uri", f"the model's score of a first input is {raw}; its weights are damaged")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


KIND = ModelKind(name=SequenceClassifier.kind, marker="config.json", load=_load)
