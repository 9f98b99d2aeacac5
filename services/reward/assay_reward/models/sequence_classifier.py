"""Hugging Face sequence classifiers with one label: the head's raw logit is the score.

Models whose forward is known here (`packed/families.py`, `packed/encoder_families.py`) are computed on packed tokens, decoders with what
sequences share computed once; all others by the forward of `transformers`, each distinct sequence without padding. The position that is
read is the one `transformers` itself reads, found from each sequence's own tokens, so neither the tokenizer's padding side nor the
company a sequence is in moves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from assay_data.conversations import Message
from assay_kit.errors import AssayError, InvalidArgument
from assay_reward.inputs import ScoreInput, Truncation
from assay_reward.models import qwen2_reward
from assay_reward.models.base import Computed, LoadOptions, ModelKind, Prepared, Rendered
from assay_reward.models.chat_inputs import ChatInputs
from assay_reward.models.chat_text import ChatText
from assay_reward.models.checkpoints import architecture_of, longest_input, read_config, read_tokenizer
from assay_reward.models.forwards import Forward, Logits
from assay_reward.models.read_forward import read_forward

CAUSAL_LM_HINT = (
    "as it stands it has no reward; a DPO-trained one has with the model it was trained from, by a folder with implicit_reward.json: "
    '{"policy": URI, "reference": URI, "beta": 0.1, "length_normalised": false}'
)
HEADS_HINT = 'a reward_heads.json that says what the labels weigh: {"heads": {"helpful": 0.65, "safe": 0.35}}'


class SequenceClassifier:
    """A sequence classifier in memory."""

    kind = "sequence_classifier"

    def __init__(self, forward: Forward, config: Any, tokenizer: Any, options: LoadOptions) -> None:
        """Takes how it is computed, and its configuration."""
        self.architecture = architecture_of(config)
        config = config.get_text_config()
        self.dtype = options.dtype
        self.max_input_tokens = longest_input(config, tokenizer, options)
        chat = ChatText(tokenizer, max_tokens=self.max_input_tokens, vocabulary=config.vocab_size)
        self._inputs = ChatInputs(chat, kind=self.kind)
        self._forward = forward

    def prepare(self, inputs: Sequence[ScoreInput], truncation: Truncation) -> list[Prepared | AssayError]:
        """Renders, tokenises and cuts; contexts that inputs share are rendered once."""
        return self._inputs.prepare(inputs, truncation)

    def render(self, conversation: tuple[Message, ...], truncation: Truncation) -> Rendered:
        """What the model would see; a conversation that does not end with an answer is shown up to where one would begin."""
        return self._inputs.render(conversation, truncation)

    def cost(self, prepared: Sequence[Prepared]) -> int:
        """Tokens of the distinct sequences, and with a packed decoder what they begin with alike once."""
        return self._forward.cost([item.ids for item in prepared])

    def score(self, prepared: Sequence[Prepared]) -> Computed:
        """The first label's logit of each, in the order given."""
        found = self.logits(prepared)
        return Computed(raw=tuple(row[0] for row in found.rows), computed_tokens=found.computed_tokens, padded_tokens=0)

    def logits(self, prepared: Sequence[Prepared]) -> Logits:
        """All labels' logits of each, in the order given."""
        return self._forward.logits([item.ids for item in prepared])


def classifier_config(folder: Path) -> Any:
    """The configuration of a sequence classifier with any number of labels.

    Raises:
        InvalidArgument: field `uri`; it is of another architecture.
    """
    config = read_config(folder)
    architecture = architecture_of(config)
    if architecture.endswith("ForCausalLM"):
        raise InvalidArgument("uri", f"the architecture is {architecture}, a language model; {CAUSAL_LM_HINT}")
    if architecture == qwen2_reward.ARCHITECTURE:
        # Its checkpoints leave the number to their own code, which has one.
        config.num_labels = 1
    elif not architecture.endswith("ForSequenceClassification"):
        raise InvalidArgument(
            "uri",
            f"the architecture is {architecture}; one that ends with ForSequenceClassification is wanted, or {qwen2_reward.ARCHITECTURE}",
        )
    return config


def read_classifier(folder: Path, config: Any, options: LoadOptions) -> SequenceClassifier:
    """The classifier in a folder whose configuration has been checked, warmed up.

    Raises:
        InvalidArgument: field `uri`; weights or tokenizer are not whole.
    """
    tokenizer = read_tokenizer(folder)
    loaded = SequenceClassifier(read_forward(folder, config, options), config, tokenizer, options)
    _warm_up(loaded, tokenizer)
    return loaded


def _load(folder: Path, options: LoadOptions) -> SequenceClassifier:
    config = classifier_config(folder)
    labels = config.num_labels
    if labels != 1:
        raise InvalidArgument("uri", f"the classifier has {labels} labels; a reward model has num_labels 1, or beside it {HEADS_HINT}")
    return read_classifier(folder, config, options)


def _warm_up(model: SequenceClassifier, tokenizer: Any) -> None:
    """A first score: it settles what is made lazily, and shows weights that are not finite together."""
    tokenizer(["warm-up"], add_special_tokens=False, truncation=False)
    raw = model.score([Prepared(ids=(1, 2, 3), prompt_tokens=1, response_tokens=2)]).raw[0]
    if not torch.isfinite(torch.tensor(raw)):
        raise InvalidArgument("uri", f"the model's score of a first input is {raw}; its weights are damaged")


KIND = ModelKind(name=SequenceClassifier.kind, marker="config.json", load=_load)
