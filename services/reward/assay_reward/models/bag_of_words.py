"""Bag-of-words Bradley-Terry models: they read the answer's text alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from assay_data.bag_of_words import BagOfWordsModel
from assay_data.conversations import Message
from assay_data.errors import DataError
from assay_data.fingerprints import BAG_OF_WORDS_FILE
from assay_kit.errors import AssayError, InvalidArgument
from assay_reward.inputs import RawText, ScoreInput, TextAnswer, Truncation
from assay_reward.models.base import Computed, LoadOptions, ModelKind, Prepared, Rendered


class BagOfWords:
    """A bag of words in memory. It has no tokens: its counts of them are 0 and nothing is ever too long."""

    kind = "bag_of_words"
    architecture = "BagOfWordsModel"
    dtype = "float64"
    max_input_tokens = 0

    def __init__(self, model: BagOfWordsModel) -> None:
        self._model = model

    def prepare(self, inputs: Sequence[ScoreInput], truncation: Truncation) -> list[Prepared | AssayError]:
        """Takes the answer's text."""
        return [self._prepared(item) for item in inputs]

    def render(self, conversation: tuple[Message, ...], truncation: Truncation) -> Rendered:
        """The answer's text."""
        last = len(conversation) - 1
        if conversation[last].role != "assistant":
            raise InvalidArgument(f"messages[{last}].role", "a bag of words reads the answer alone; the last turn must be the assistant's")
        return Rendered(text=conversation[last].content)

    def cost(self, prepared: Sequence[Prepared]) -> int:
        """0, whatever there is."""
        return 0

    def score(self, prepared: Sequence[Prepared]) -> Computed:
        """Scores each text by itself, so that its score has the same bits in any company."""
        raw = tuple(float(self._model.score([item.text])[0]) for item in prepared)
        return Computed(raw=raw, computed_tokens=0, padded_tokens=0)

    def _prepared(self, item: ScoreInput) -> Prepared | AssayError:
        if isinstance(item, TextAnswer | RawText):
            return Prepared(text=item.text, prompt_tokens=0, response_tokens=0)
        return InvalidArgument(item.field, "a bag of words has no tokens; text is wanted")


def _load(folder: Path, options: LoadOptions) -> BagOfWords:
    try:
        return BagOfWords(BagOfWordsModel.load(folder))
    except DataError as error:
        raise InvalidArgument("uri", str(error)) from error


KIND = ModelKind(name=BagOfWords.kind, marker=BAG_OF_WORDS_FILE, load=_load)
