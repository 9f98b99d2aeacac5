"""The families of reward models. A new family is a module here that makes a `ModelKind`, and its line in `KINDS`."""

from __future__ import annotations

from pathlib import Path

from assay_data.errors import DataError
from assay_data.fingerprints import Fingerprint
from assay_kit.errors import InvalidArgument
from assay_reward.models import bag_of_words, ensemble, generative_judge, implicit_reward, reward_heads, sequence_classifier, vllm_server
from assay_reward.models.base import AnyModel, LoadOptions, ModelKind, RemoteModel, RewardModel


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


def load_folder(folder: Path, options: LoadOptions) -> AnyModel:
    """The reward model in a folder.

    Raises:
        InvalidArgument: field `uri`; the folder is of no family, or not a whole model of it.
        NotFound: field `uri`; a member of it is not there.
    """
    return kind_of(folder).load(folder, options)


def fingerprint_model(folder: Path, options: LoadOptions) -> Fingerprint:
    """Hashes of all that the scores of the model in a folder depend on, its members' content among it.

    Raises:
        InvalidArgument: field `uri`; as `load_folder`.
        NotFound: field `uri`; likewise.
    """
    try:
        return kind_of(folder).fingerprint(folder, options)
    except DataError as error:
        raise InvalidArgument("uri", str(error)) from error


def expected_bytes(folder: Path, options: LoadOptions) -> int:
    """Bytes that the weights of the model in a folder will take in memory, told without reading them.

    Raises:
        InvalidArgument: field `uri`; as `load_folder`.
        NotFound: field `uri`; likewise.
    """
    return kind_of(folder).weight_bytes(folder, options)


KINDS: tuple[ModelKind, ...] = (
    bag_of_words.KIND,
    generative_judge.KIND,
    ensemble.kind(load_folder, fingerprint_model, expected_bytes),
    implicit_reward.KIND,
    vllm_server.KIND,
    reward_heads.KIND,
    sequence_classifier.KIND,
)
"""Asked in order: the first whose marker a folder holds reads it."""


__all__ = [
    "KINDS",
    "LoadOptions",
    "AnyModel",
    "ModelKind",
    "RemoteModel",
    "RewardModel",
    "expected_bytes",
    "fingerprint_model",
    "kind_of",
    "load_folder",
]
