"""The families of reward models. A new family is a module here that makes a `ModelKind`, and its line in `KINDS`."""

from __future__ import annotations

from pathlib import Path

from assay_kit.errors import InvalidArgument
from assay_reward.models import bag_of_words, sequence_classifier
from assay_reward.models.base import LoadOptions, ModelKind, RewardModel

KINDS: tuple[ModelKind, ...] = (bag_of_words.KIND, sequence_classifier.KIND)
"""Asked in order: the first whose marker a folder holds reads it."""


def kind_of(folder: Path) -> ModelKind:
    """The family of the model in a folder.

    Raises:
        InvalidArgument: field `uri`; it is of none.
    """
    for kind in KINDS:
        if (folder / kind.marker).is_file():
            return kind
    wanted = " or ".join(f"{kind.marker} ({kind.name})" for kind in KINDS)
    raise InvalidArgument("uri", f"{folder} holds no reward model; a folder with {wanted} is wanted")


def load_folder(folder: Path, options: LoadOptions) -> RewardModel:
    """The reward model in a folder.

    Raises:
        InvalidArgument: field `uri`; the folder is of no family, or not a whole model of it.
    """
    return kind_of(folder).load(folder, options)


__all__ = ["KINDS", "LoadOptions", "ModelKind", "RewardModel", "kind_of", "load_folder"]
