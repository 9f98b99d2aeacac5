import gzip
import json
import os
import socket

import pyarrow
import pyarrow.parquet
import pytest

from assay_data.conversations import Message, PreferencePair
from assay_data.errors import DataError, HubUnavailable
from assay_data.hub import hub_files
from assay_data.pairs import read_pair_rows, read_pairs, write_pairs
from assay_data.rows import joined, parquet_schema

GOOD = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}


def lines(*rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_a_file_written_is_read_back(tmp_path):
    uri = str(tmp_path / "pairs.jsonl")
    pairs = [PreferencePair((Message("user", f"{n}?"),), "yes \u2028 😀", "no", source="s") for n in range(3)]
    artifact = write_pairs(uri, pairs)
    assert list(read_pairs(uri)) == pairs
    assert artifact.rows == 3 and artifact.size_bytes == (tmp_path / "pairs.jsonl").stat().st_size
    assert os.listdir(tmp_path) == ["pairs.jsonl"]


def test_a_pair_with_a_lone_surrogate_is_read_and_written(tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_bytes(b'{"prompt": "p", "chosen": "a \\ud83d b", "rejected": "c"}\n')
    (pair,) = read_pairs(str(path))
    write_pairs(str(tmp_path / "out.jsonl"), [pair])
    assert list(read_pairs(str(tmp_path / "out.jsonl"))) == [pair]


@pytest.mark.parametrize(
    "content",
    [
        lines(GOOD, GOOD),
        lines(GOOD) + b"\n\n" + lines(GOOD)[:-1],
        b"\xef\xbb\xbf" + lines(GOOD).replace(b"\n", b"\r\n") + b"\r\n" + lines(GOOD),
        b"  \n" + lines(GOOD) + b"\n\n",
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_the_raw_rows_make_the_file_again(tmp_path, content, zipped):
    path = tmp_path / ("pairs.jsonl.gz" if zipped else "pairs.jsonl")
    path.write_bytes(gzip.compress(content, mtime=0) if zipped else content)
    rows = list(read_pair_rows(str(path)))
    assert len(rows) == content.count(b"Why?")
    assert joined(row.raw for row in rows) == content


def test_gzip_is_known_by_its_bytes_whatever_the_name(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(gzip.compress(lines(GOOD), mtime=0))
    assert len(list(read_pairs(str(path)))) == 1


def test_parquet_is_read_and_made_again_as_an_equal_table(tmp_path):
    path = tmp_path / "pairs.parquet"
    table = pyarrow.table(
        {
            "prompt": pyarrow.array([[{"role": "user", "content": "Why?"}], [{"role": "user", "content": "Who?"}]]),
            "chosen": ["Because.", "Me."],
            "rejected": ["No.", ""],
            "when": pyarrow.array([1, None], pyarrow.timestamp("us")),
            "blob": pyarrow.array([b"\xff\x00", b""], pyarrow.binary()),
            "kind": pyarrow.array(["a", "b"]).dictionary_encode(),
        }
    )
    pyarrow.parquet.write_table(table, path)
    rows = list(read_pair_rows(str(path)))
    assert [row.pair.prompt[0].content for row in rows] == ["Why?", "Who?"]
    assert rows[1].number == 2
    assert joined((row.raw for row in rows), parquet_schema(path)).equals(pyarrow.parquet.read_table(path))


def test_a_folder_is_read_file_by_file_in_the_order_of_names(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "test.jsonl.gz").write_bytes(gzip.compress(lines({**GOOD, "prompt": "third"}), mtime=0))
    (tmp_path / "a-train.jsonl").write_bytes(lines({**GOOD, "prompt": "first"}, {**GOOD, "prompt": "second"}))
    (tmp_path / "readme.md").write_text("not pairs")
    (tmp_path / ".partial-x.jsonl").write_text("not pairs")
    rows = list(read_pair_rows(str(tmp_path)))
    assert [row.pair.prompt[0].content for row in rows] == ["first", "second", "third"]
    assert [row.file for row in rows] == ["a-train.jsonl", "a-train.jsonl", "b/test.jsonl.gz"]
    assert [row.pair.split for row in rows] == ["train", "train", "test"]
    assert rows[2].pair.source == f"{tmp_path.name}/b"


def test_no_more_than_the_limit_is_read(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(lines(GOOD, GOOD) + b"not json\n")
    assert len(list(read_pairs(f"file://{path}", 2))) == 2
    with pytest.raises(DataError):
        list(read_pairs(str(path), 3))


@pytest.mark.parametrize(
    ("name", "content", "row", "field", "right"),
    [
        ("a.jsonl", b"", 0, "", "the file is empty"),
        ("a.jsonl", b"\n \n", 0, "", "only blank lines"),
        ("a.jsonl", lines(GOOD) + b'{"chosen": \n', 2, "", "one JSON object a line"),
        ("a.jsonl", lines(GOOD) + b"\n" + lines({"chosen": "x"}), 3, "rejected", "both chosen and rejected"),
        ("a.jsonl", lines(GOOD) + b"[1]\n", 2, "", "a JSON array"),
        ("a.json", b'[\n {"chosen": "x"}\n]\n', 1, "", "write one object a line"),
        ("a.jsonl", lines(GOOD) + b"\xff\xfe\n", 2, "", "not UTF-8"),
        ("a.jsonl", b"\x89PNG\r\n\x1a\n\x00", 1, "", "Parquet is wanted"),
        ("a.jsonl.gz", lines(GOOD), 0, "", "the name says gzip"),
        ("a.jsonl.gz", gzip.compress(lines(*[{**GOOD, "n": str(n)} for n in range(500)]), mtime=0)[:-20], None, "", "cut short"),
        ("a.jsonl.gz", gzip.compress(lines(GOOD), mtime=0)[:12] + b"\x00" * 30, None, "", "damaged"),
        ("a.parquet", b"PAR1 and nothing else", 0, "", "not a whole Parquet file"),
        ("a.parquet", lines(GOOD), 0, "", "not a whole Parquet file"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused_with_row_and_remedy(tmp_path, name, content, row, field, right):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_pairs(str(path)))
    error = caught.value
    assert error.uri == str(path)
    assert error.field == field
    assert right in error.message
    if row is not None:
        assert error.row == row


def test_a_parquet_row_with_one_side_missing_is_named(tmp_path):
    path = tmp_path / "pairs.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["a", "b"], "chosen": ["c", None], "rejected": ["d", "e"]}), path)
    with pytest.raises(DataError, match="row 2, field chosen: missing"):
        list(read_pairs(str(path)))


def test_a_place_where_nothing_is_says_so(tmp_path):
    with pytest.raises(DataError, match="there is no such file or folder"):
        list(read_pairs(str(tmp_path / "nothing.jsonl")))
    with pytest.raises(DataError, match="the folder holds no .jsonl"):
        list(read_pairs(str(tmp_path)))
    with pytest.raises(DataError, match="scheme"):
        list(read_pairs("nosuch://x/y.jsonl"))


@pytest.mark.parametrize("answers", ["nobody", "silence"])
def test_a_hub_that_is_not_reached_is_said_to_be_away_by_the_real_library(monkeypatch, answers):
    with socket.socket() as hub:
        hub.bind(("127.0.0.1", 0))
        if answers == "silence":
            hub.listen()
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{hub.getsockname()[1]}")
        with pytest.raises(HubUnavailable, match="no such file or folder here, and no hub answers"):
            hub_files("owner/name", timeout_seconds=0.5)


def test_a_hub_id_without_a_hub_is_refused_at_once(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnavailable, match="no such file or folder here, and (the hub is switched off|no hub answers)"):
        list(read_pairs("Anthropic/hh-rlhf"))


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    uri = str(tmp_path / "pairs.jsonl")
    (tmp_path / "pairs.jsonl").write_text("before")

    def breaking():
        yield PreferencePair((), "a", "b")
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        write_pairs(uri, breaking())
    assert (tmp_path / "pairs.jsonl").read_text() == "before"
    assert os.listdir(tmp_path) == ["pairs.jsonl"]


def test_real_hh_pairs_are_read_whole(shared_data):
    path = shared_data / "hh-rlhf" / "harmless-base-test.jsonl.gz"
    rows = list(read_pair_rows(str(path)))
    assert len(rows) == 2312
    assert joined(row.raw for row in rows) == gzip.decompress(path.read_bytes())
    assert sum(bool(row.pair.rejected_prompt) for row in rows) == 5
    assert sum(not row.pair.chosen or not row.pair.rejected for row in rows) == 4
    assert {(row.pair.source, row.pair.split) for row in rows} == {("hh-rlhf/harmless-base", "test")}
    two_answers_in_a_row = [row.number for row in rows if row.pair.prompt[-1].role != "user"]
    assert two_answers_in_a_row == [1255, 1689, 1953, 2037]
