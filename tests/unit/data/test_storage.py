import os
import uuid

import fsspec
import pytest
from support.object_store import bucket

from assay_data import storage
from assay_data.errors import DataError


@pytest.fixture(scope="module")
def s3():
    with bucket() as uri:
        yield uri


@pytest.fixture(params=["path", "file", "memory", "s3"])
def base(request, tmp_path):
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}"
    return {"path": str(tmp_path), "file": tmp_path.as_uri(), "memory": f"memory://{uuid.uuid4().hex}"}[request.param]


def test_json_and_jsonl_come_back(base):
    uri = storage.join_uri(base, "a", "x.json")
    assert not storage.exists(uri)
    storage.write_json(uri, {"ä": [1, None]})
    assert storage.read_json(uri) == {"ä": [1, None]}
    rows = storage.join_uri(base, "rows.jsonl")
    assert storage.write_jsonl(rows, iter([{"n": 1}, "\ud83d", []])) == 3
    assert list(storage.read_jsonl(rows)) == [{"n": 1}, "\ud83d", []]
    assert storage.exists(uri)


def test_a_write_that_fails_changes_nothing(base):
    uri = storage.join_uri(base, "x.txt")
    with storage.atomic_write(uri, "w") as file:
        file.write("before")
    version = storage.version_of(uri)
    with pytest.raises(RuntimeError), storage.atomic_write(uri, "w") as file:
        file.write("half")
        raise RuntimeError
    with storage.open_uri(uri, "r") as file:
        assert file.read() == "before"
    assert storage.version_of(uri) == version
    filesystem, path = fsspec.core.url_to_fs(base)
    assert [os.path.basename(name) for name in filesystem.find(path)] == ["x.txt"]


def test_a_file_that_changes_has_another_version(base):
    uri = storage.join_uri(base, "x.txt")
    versions = []
    for text in ("one", "other"):
        with storage.atomic_write(uri, "w") as file:
            file.write(text)
        versions.append(storage.version_of(uri))
    assert versions[0] != versions[1]


def test_a_folder_appears_whole_or_not_at_all(base):
    uri = storage.join_uri(base, "out")
    with pytest.raises(RuntimeError), storage.atomic_folder(uri) as folder:
        (folder / "a.txt").write_text("half")
        raise RuntimeError
    assert not storage.exists(storage.join_uri(uri, "a.txt"))
    with storage.atomic_folder(uri, last=("summary.json",)) as folder:
        (folder / "summary.json").write_text("{}")
        (folder / "z.txt").write_text("z")
        (folder / "deep").mkdir()
        (folder / "deep" / "b.txt").write_text("b")
        assert not storage.exists(storage.join_uri(uri, "z.txt"))
    for name in ("summary.json", "z.txt", "deep/b.txt"):
        assert storage.exists(storage.join_uri(uri, name))


def test_what_a_killed_run_left_is_removed_by_the_next_of_its_name(tmp_path):
    uri = str(tmp_path / "out")
    left = storage.atomic_folder(uri, tag="job-1")
    (left.__enter__() / "half.txt").write_text("half")
    assert len(os.listdir(tmp_path)) == 1
    with storage.atomic_folder(uri, tag="job-1") as folder:
        assert os.listdir(folder) == []
        (folder / "whole.txt").write_text("whole")
    assert os.listdir(tmp_path) == ["out"] and os.listdir(uri) == ["whole.txt"]


def test_a_folder_leaves_the_files_of_others_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with storage.atomic_folder(str(tmp_path)) as folder:
        (folder / "new.txt").write_text("new")
    assert sorted(os.listdir(tmp_path)) == ["mine.txt", "new.txt"]


@pytest.mark.parametrize("base", ["memory", "s3"], indirect=True)
def test_remote_files_and_folders_are_fetched_once_per_version(base, tmp_path):
    storage.write_json(f"{base}/model/a.json", 1)
    storage.write_json(f"{base}/model/deep/b.json", 2)
    folder = storage.local_path(f"{base}/model", cache=tmp_path)
    assert storage.read_json(str(folder / "deep" / "b.json")) == 2
    assert storage.local_path(f"{base}/model", cache=tmp_path) == folder
    storage.write_json(f"{base}/model/a.json", 3)
    again = storage.local_path(f"{base}/model", cache=tmp_path)
    assert again != folder and storage.read_json(str(again / "a.json")) == 3
    file = storage.local_path(f"{base}/model/a.json", cache=tmp_path)
    assert file.is_file() and storage.read_json(str(file)) == 3


def test_the_hash_of_a_folder_depends_on_names_and_contents(tmp_path):
    hashes = set()
    for number, files in enumerate(({"a": "1", "b": "2"}, {"a": "2", "b": "1"}, {"a": "1", "c": "2"}, {"b": "2", "a": "1"})):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text)
        hashes.add(storage.sha256_of(folder))
    assert len(hashes) == 3
    info = storage.artifact_of(str(tmp_path / "0"), rows=7)
    assert (info.size_bytes, info.rows, info.sha256) == (2, 7, storage.sha256_of(tmp_path / "0"))


def test_faults_of_places_are_data_errors(tmp_path):
    for call in (
        lambda: storage.read_json(str(tmp_path / "no.json")),
        lambda: storage.read_json(str(tmp_path)),
        lambda: storage.read_json("memory://nowhere/no.json"),
        lambda: storage.local_path("memory://nowhere/no.json", cache=tmp_path),
        lambda: storage.version_of(str(tmp_path / "no.json")),
        lambda: storage.path_of("file://host/x"),
        lambda: storage.path_of("s3://bucket/x"),
    ):
        with pytest.raises(DataError):
            call()
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        storage.read_json(str(tmp_path / "bad.json"))
    (tmp_path / "bad.jsonl").write_text("1\n\n{\n")
    with pytest.raises(DataError, match="row 3"):
        list(storage.read_jsonl(str(tmp_path / "bad.jsonl")))
    with pytest.raises(ValueError, match="open_uri reads"), storage.open_uri(str(tmp_path / "x"), "w"):
        pass
