import hashlib
import json

import pytest

from assay_data.errors import DataError
from assay_data.fingerprints import fingerprint_folder


def model(folder, *, weights=b"w", tokenizer="{}", template="{{ x }}", inside=False):
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "tokenizer.json").write_text(tokenizer)
    config = {"chat_template": template} if inside else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if not inside:
        (folder / "chat_template.jinja").write_text(template)
    return fingerprint_folder(folder)


def test_weights_tokenizer_and_template_each_change_the_fingerprint(tmp_path):
    plain = model(tmp_path / "plain")
    assert plain.fingerprint != model(tmp_path / "a", weights=b"v").fingerprint
    assert plain.fingerprint != model(tmp_path / "b", tokenizer="[]").fingerprint
    assert plain.fingerprint != model(tmp_path / "c", template="{{ y }}").fingerprint
    joined = f"{plain.weights_sha256}\n{plain.tokenizer_sha256}\n{plain.chat_template_sha256}"
    assert plain.fingerprint == hashlib.sha256(joined.encode()).hexdigest()


def test_the_template_counts_wherever_it_is_kept(tmp_path):
    assert model(tmp_path / "a") == model(tmp_path / "b", inside=True)


def test_the_shards_of_the_weights_are_read_in_the_order_of_their_names(tmp_path):
    whole = model(tmp_path / "whole", weights=b"firstsecond")
    sharded = model(tmp_path / "sharded", weights=b"")
    (tmp_path / "sharded" / "model.safetensors").unlink()
    (tmp_path / "sharded" / "model-2.safetensors").write_bytes(b"second")
    (tmp_path / "sharded" / "model-1.safetensors").write_bytes(b"first")
    assert fingerprint_folder(tmp_path / "sharded") == whole != sharded


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no weights here; \*\.safetensors or bag_of_words\.json"):
        fingerprint_folder(tmp_path)
