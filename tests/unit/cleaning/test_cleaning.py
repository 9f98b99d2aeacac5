import gzip
import json
import os

import pyarrow
import pyarrow.parquet
import pytest

from assay_cleaning.categories import Options
from assay_cleaning.cleaning import clean
from assay_cleaning.outputs import rebuild_input
from assay_data.errors import DataError
from assay_data.generated import generate_pairs
from assay_data.pairs import read_pairs, write_pairs
from assay_data.storage import read_json, read_jsonl

OUTPUTS = {"kept.jsonl", "flipped.jsonl", "dropped.jsonl", "clean.jsonl", "labelled.jsonl", "summary.json", "committee.json.gz"}


def cleaned(input_uri, output, **wanted):
    told, seen = [], []
    result = clean(
        input_uri=str(input_uri),
        output_uri=str(output),
        options=wanted.pop("options", Options()),
        limit=wanted.pop("limit", 0),
        committee=None,
        tag="job",
        progress=wanted.pop("progress", lambda *facts: told.append(facts)),
        on_verdict=seen.append,
    )
    return result, told, seen


@pytest.fixture
def generated(tmp_path):
    path = tmp_path / "in" / "generated.jsonl"
    write_pairs(str(path), generate_pairs(400, seed=2))
    return path


def test_every_pair_goes_to_one_place(generated, tmp_path):
    result, told, seen = cleaned(generated, tmp_path / "out")
    assert set(os.listdir(tmp_path / "out")) == OUTPUTS
    parts = {
        name: list(read_jsonl(str(tmp_path / "out" / f"{name}.jsonl"))) for name in ("kept", "flipped", "dropped", "clean", "labelled")
    }
    assert result["rows_in"] == len(parts["labelled"]) == len(seen) == 400
    assert sum(result["categories"].values()) == sum(result["actions"].values()) == 400
    assert result["actions"] == {"KEEP": len(parts["kept"]), "FLIP": len(parts["flipped"]), "DROP": len(parts["dropped"])}
    assert all(result["categories"].values())
    originals = {pair.id: pair for pair in read_pairs(str(generated))}
    assert [row["pair"]["id"] for row in parts["labelled"]] == list(originals)
    kept = list(read_pairs(result["kept_uri"]))
    turned = list(read_pairs(result["flipped_uri"]))
    assert all(pair == originals[pair.id] for pair in kept)
    assert all(pair.turned_round() == originals[pair.turned_round().id] for pair in turned)
    assert all(row["reason"].startswith("dropped: ") for row in parts["dropped"])
    assert {pair.id for pair in read_pairs(result["clean_uri"])} == {pair.id for pair in kept + turned}
    assert told[-1] == ("label", 400, 400, "pairs")
    assert result["committee"]["cross_fitted_accuracy_interval"][0] > 0.5


def test_cleaning_twice_gives_the_same_bytes(generated, tmp_path):
    cleaned(generated, tmp_path / "a")
    cleaned(generated, tmp_path / "b")
    for name in OUTPUTS - {"summary.json"}:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_committee_it_leaves_gives_the_same_labels(generated, tmp_path):
    from assay_cleaning.committee import Committee
    from assay_cleaning.labelling import Labeller

    result, _, seen = cleaned(generated, tmp_path / "out")
    labeller = Labeller(Options(committee_uri=result["committee_uri"]), Committee.load(result["committee_uri"]))
    assert [labeller.label(verdict.pair) for verdict in seen] == seen
    assert labeller.policy_id == result["policy_id"]


@pytest.mark.parametrize("ending", [b"\n", b"", b"\r\n", b"\n\n \n"])
def test_the_input_is_rebuilt_byte_for_byte(tmp_path, ending):
    rows = [
        {"chosen": "\n\nHuman: Why?\n\nAssistant: Because of \u2028 reasons.", "rejected": "\n\nHuman: Why?\n\nAssistant: "},
        {"rejected": "no", "odd": 1.50, "chosen": "yes", "prompt": "p"},
    ]
    content = (
        json.dumps(rows[0]).encode()
        + b"\r\n\n"
        + json.dumps(rows[1], indent=None, ensure_ascii=False).encode().replace(b":", b" : ")
        + ending
    )
    (tmp_path / "odd.jsonl.gz").write_bytes(gzip.compress(content))
    cleaned(tmp_path / "odd.jsonl.gz", tmp_path / "out")
    assert rebuild_input(str(tmp_path / "out")) == {"odd.jsonl.gz": content}


def test_a_parquet_input_is_rebuilt_as_an_equal_table(tmp_path):
    table = pyarrow.table(
        {"prompt": ["a", "b"], "chosen": ["x y z", "1"], "rejected": ["q", ""], "n": pyarrow.array([1, None], pyarrow.int8())}
    )
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    cleaned(tmp_path / "t.parquet", tmp_path / "out")
    assert rebuild_input(str(tmp_path / "out"))["t.parquet"].equals(pyarrow.parquet.read_table(tmp_path / "t.parquet"))


def test_a_folder_is_rebuilt_file_by_file(tmp_path):
    folder = tmp_path / "in"
    (folder / "b").mkdir(parents=True)
    contents = {"a.jsonl": b'{"prompt":"p","chosen":"c","rejected":"r"}\n', "b/a.jsonl": b'\n{"prompt":"q","chosen":"c","rejected":"r"}'}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    cleaned(folder, tmp_path / "out")
    assert rebuild_input(str(tmp_path / "out")) == contents


def test_an_output_that_was_changed_is_not_taken_for_the_input(generated, tmp_path):
    cleaned(generated, tmp_path / "out")
    labelled = tmp_path / "out" / "labelled.jsonl"
    labelled.write_text("".join(labelled.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="the output was changed"):
        rebuild_input(str(tmp_path / "out"))


def test_a_bad_row_stops_it_and_nothing_is_left(generated, tmp_path):
    with generated.open("ab") as file:
        file.write(b'{"prompt": "p", "chosen": "c"}\n')
    with pytest.raises(DataError, match="row 401, field rejected: missing"):
        cleaned(generated, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["in"]


def test_stopping_it_half_way_leaves_nothing(generated, tmp_path):
    class Stopped(Exception):
        pass

    def stop(stage, done, total, unit):
        if stage == "label":
            raise Stopped

    with pytest.raises(Stopped):
        cleaned(generated, tmp_path / "out", progress=stop)
    assert sorted(os.listdir(tmp_path)) == ["in"]


def test_a_limit_cleans_the_first_rows_only(generated, tmp_path):
    result, _, _ = cleaned(generated, tmp_path / "out", limit=30)
    assert result["rows_in"] == 30
    assert result["committee"] is None and result["committee_uri"] == ""
    first = b"".join(generated.read_bytes().splitlines(keepends=True)[:30])
    assert rebuild_input(str(tmp_path / "out")) == {"generated.jsonl": first}


def test_the_summary_is_written_last_and_says_where_all_is(generated, tmp_path):
    result, _, _ = cleaned(generated, tmp_path / "out")
    summary = read_json(result["summary_uri"])
    assert {key: summary[key] for key in result} == result
    assert [(one["name"], one["rows"]) for one in summary["inputs"]] == [("generated.jsonl", 400)]


def test_a_remote_folder_takes_the_output(generated, tmp_path):
    result, _, _ = cleaned(generated, "memory://cleaning-test/out")
    assert len(list(read_pairs(result["kept_uri"]))) == result["actions"]["KEEP"]
    assert rebuild_input("memory://cleaning-test/out") == {"generated.jsonl": generated.read_bytes()}


def test_real_pairs_are_cleaned_and_rebuilt(shared_data, tmp_path):
    path = shared_data / "hh-rlhf" / "harmless-base-test.jsonl.gz"
    result, _, _ = cleaned(path, tmp_path / "out")
    print(result["categories"], result["actions"], result["committee"])
    assert result["rows_in"] == 2312
    assert rebuild_input(str(tmp_path / "out")) == {path.name: gzip.decompress(path.read_bytes())}
    assert result["committee"]["cross_fitted_accuracy_interval"][0] > 0.58
    assert 4 <= result["categories"]["EMPTY"] <= 20
    assert all(0 < result["categories"][name] < 100 for name in ("TOXIC", "VAGUE", "REPETITIVE", "OPPOSITE"))
