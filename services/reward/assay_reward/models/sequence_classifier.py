"""Hugging Face sequence classifiers with one label: the head's raw logit is the score.

The position that is read is the one `transformers` itself reads, found from each sequence's own tokens; padding is always to
the right and masked, so neither the tokenizer's padding side nor the company a sequence is in moves it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from assay_data.conversations import Message
from assay_kit.errors import AssayError, InvalidArgument
from assay_reward.inputs import ScoreInput, Truncation
from assay_reward.models.base import Computed, LoadOptions, ModelKind, Prepared, Rendered
from assay_reward.models.chat_inputs import ChatInputs
from assay_reward.models.chat_text import ChatText
from assay_reward.models.checkpoints import architecture_of, longest_input, read_config, read_tokenizer, read_weights

_TOKENS_PER_FORWARD = 65_536
CAUSAL_LM_HINT = (
    "as it stands it has no reward; a DPO-trained one has with the model it was trained from, by a folder with implicit_reward.json: "
    '{"policy": URI, "reference": URI, "beta": 0.1, "length_normalised": false}'
)
HEADS_HINT = 'a reward_heads.json that says what the labels weigh: {"heads": {"helpful": 0.65, "safe": 0.35}}'


class SequenceClassifier:
    """A sequence classifier in memory."""

    kind = "sequence_classifier"

    def __init__(self, model: Any, tokenizer: Any, options: LoadOptions) -> None:
        config = model.config.get_text_config()
        self.architecture = str(model.config.architectures[0])
        self.dtype = options.dtype
        self.max_input_tokens = longest_input(config, tokenizer, options)
        self._model = model
        self._device = options.device
        chat = ChatText(tokenizer, max_tokens=self.max_input_tokens, vocabulary=config.vocab_size)
        self._inputs = ChatInputs(chat, kind=self.kind)
        pad = config.pad_token_id
        # Without a padding id of its own, transformers reads the last token, and only of one sequence at a time.
        self._pad = pad if pad is not None and 0 <= pad < config.vocab_size else None
        self._together = 1 if self._pad is None else options.sequences_per_forward

    def prepare(self, inputs: Sequence[ScoreInput], truncation: Truncation) -> list[Prepared | AssayError]:
        """Renders, tokenises and cuts; contexts that inputs share are rendered once."""
        return self._inputs.prepare(inputs, truncation)

    def render(self, conversation: tuple[Message, ...], truncation: Truncation) -> Rendered:
        """What the model would see; a conversation that does not end with an answer is shown up to where one would begin."""
        return self._inputs.render(conversation, truncation)

    def cost(self, prepared: Sequence[Prepared]) -> int:
        """Sum of the lengths."""
        return sum(item.tokens for item in prepared)

    def score(self, prepared: Sequence[Prepared]) -> Computed:
        """The first label's logit of each, in the order given."""
        logits, padded = self.logits(prepared)
        raw = tuple(row[0] for row in logits)
        return Computed(raw=raw, computed_tokens=sum(item.tokens for item in prepared), padded_tokens=padded)

    def logits(self, prepared: Sequence[Prepared]) -> tuple[list[list[float]], int]:
        """All labels' logits of each, and the tokens of padding; forwards of a few sequences each, in the order given."""
        rows: list[list[float]] = []
        padded = 0
        for few in self._forwards(prepared):
            longest = max(item.tokens for item in few)
            padded += longest * len(few) - sum(item.tokens for item in few)
            rows += self._forward(few, longest)
        return rows, padded

    def _forward(self, few: Sequence[Prepared], longest: int) -> list[list[float]]:
        fill = self._pad or 0
        ids = torch.tensor([[*item.ids, *[fill] * (longest - item.tokens)] for item in few], device=self._device)
        mask = torch.tensor([[1] * item.tokens + [0] * (longest - item.tokens) for item in few], device=self._device)
        with torch.inference_mode():
            logits = self._model(input_ids=ids, attention_mask=mask).logits
        return [[float(value) for value in row] for row in logits.double().tolist()]

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


def classifier_config(folder: Path) -> Any:
    """The configuration of a sequence classifier with any number of labels.

    Raises:
        InvalidArgument: field `uri`; it is of another architecture.
    """
    config = read_config(folder)
    architecture = architecture_of(config)
    if architecture.endswith("ForCausalLM"):
        raise InvalidArgument("uri", f"the architecture is {architecture}, a language model; {CAUSAL_LM_HINT}")
    if not architecture.endswith("ForSequenceClassification"):
        raise InvalidArgument("uri", f"the architecture is {architecture}; one that ends with ForSequenceClassification is wanted")
    return config


def read_classifier(folder: Path, options: LoadOptions) -> SequenceClassifier:
    """The classifier in a folder whose configuration has been checked, warmed up.

    Raises:
        InvalidArgument: field `uri`; weights or tokenizer are not whole.
    """
    tokenizer = read_tokenizer(folder)
    model = read_weights(AutoModelForSequenceClassification, folder, architecture_of(read_config(folder)), options)
    loaded = SequenceClassifier(model, tokenizer, options)
    _warm_up(loaded, tokenizer)
    return loaded


def _load(folder: Path, options: LoadOptions) -> SequenceClassifier:
    labels = classifier_config(folder).num_labels
    if labels != 1:
        raise InvalidArgument("uri", f"the classifier has {labels} labels; a reward model has num_labels 1, or beside it {HEADS_HINT}")
    return read_classifier(folder, options)


def _warm_up(model: SequenceClassifier, tokenizer: Any) -> None:
    """A first score: it settles what is made lazily, and shows weights that are not finite together."""
    tokenizer(["warm-up"], add_special_tokens=False, truncation=False)
    raw = model.score([Prepared(ids=(1, 2, 3), prompt_tokens=1, response_tokens=2)]).raw[0]
    if not torch.isfinite(torch.tensor(raw)):
        raise InvalidArgument("uri", f"the model's score of a first input is {raw}; its weights are damaged")


KIND = ModelKind(name=SequenceClassifier.kind, marker="config.json", load=_load)
