"""The identity of a model: what its scores depend on, hashed.

Reward, policy, training and evaluation all name a model by this fingerprint; the quality card is keyed by it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from assay_data.errors import DataError

BAG_OF_WORDS_FILE = "bag_of_words.json"
"""The one file of a bag-of-words model."""


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of a model, each SHA-256 in hexadecimal.

    Attributes:
        weights_sha256: of the bytes of all weight files, in order of their names.
        tokenizer_sha256: of ``tokenizer.json``; of nothing where there is none.
        chat_template_sha256: of the chat template's UTF-8 text; of nothing where there is none.
        fingerprint: of the three, joined by newlines.
    """

    weights_sha256: str
    tokenizer_sha256: str
    chat_template_sha256: str
    fingerprint: str


def fingerprint_of(*, weights_sha256: str, tokenizer_sha256: str, chat_template_sha256: str) -> Fingerprint:
    """Fingerprint from the three hashes."""
    joined = f"{weights_sha256}\n{tokenizer_sha256}\n{chat_template_sha256}"
    return Fingerprint(weights_sha256, tokenizer_sha256, chat_template_sha256, hashlib.sha256(joined.encode()).hexdigest())


def fingerprint_folder(path: str | Path) -> Fingerprint:
    """Fingerprint of a model's folder, as ``save_pretrained`` or `BagOfWordsModel.save` leaves it.

    Raises:
        DataError: where the folder holds no weights.
    """
    folder = Path(path)
    bag_of_words = folder / BAG_OF_WORDS_FILE
    weights = [bag_of_words] if bag_of_words.is_file() else sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not weights:
        raise DataError(str(path), 0, "", f"no weights here; *.safetensors or {BAG_OF_WORDS_FILE} is wanted")
    digest = hashlib.sha256()
    for file in weights:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    tokenizer = folder / "tokenizer.json"
    return fingerprint_of(
        weights_sha256=digest.hexdigest(),
        tokenizer_sha256=hashlib.sha256(tokenizer.read_bytes() if tokenizer.is_file() else b"").hexdigest(),
        chat_template_sha256=hashlib.sha256(_chat_template(folder).encode()).hexdigest(),
    )


def _chat_template(folder: Path) -> str:
    own_file = folder / "chat_template.jinja"
    if own_file.is_file():
        return own_file.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return ""
    try:
        template = json.loads(config.read_text(encoding="utf-8")).get("chat_template") or ""
    except ValueError as error:
        raise DataError(str(config), 0, "", f"not JSON: {error}") from error
    return template if isinstance(template, str) else json.dumps(template, sort_keys=True)
