"""A model in memory: where it computes and with what."""

from pathlib import Path
from typing import Any

import numpy as np

from assay_data.bag_of_words import BagOfWordsModel
from assay_data.fingerprints import Fingerprint
from assay_reward.loaded import LoadedModel
from assay_reward.models import LoadOptions, load_folder


class Elsewhere:
    """Computes elsewhere, and says with what."""

    kind = architecture = dtype = "elsewhere"
    max_input_tokens = 0
    engine_version = "thinker/2"

    prepare = render = ask = staticmethod(lambda *given: None)


def loaded(model: Any) -> LoadedModel:
    hashes = Fingerprint(fingerprint="f", weights_sha256="w", tokenizer_sha256="t", chat_template_sha256="c")
    return LoadedModel(name="rm", revision="1", uri="", model=model, fingerprint=hashes, loaded_at=0.0, memory_bytes=0)


def test_a_model_on_the_device_is_local_and_computed_by_the_services_own_engine(tmp_path: Path) -> None:
    BagOfWordsModel(vocabulary=("a",), idf=np.ones(1), weights=np.ones(1), mean=0.0, std=1.0).save(tmp_path / "words")
    model = load_folder(tmp_path / "words", LoadOptions())
    found = loaded(model)
    assert found.local is model and found.remote is None and found.engine_version is None


def test_a_model_that_computes_elsewhere_is_remote_and_says_with_what() -> None:
    model = Elsewhere()
    found = loaded(model)
    assert found.remote is model and found.local is None and found.engine_version == "thinker/2"
