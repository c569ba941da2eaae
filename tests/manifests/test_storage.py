"""Places at URIs, over a real S3 server that misbehaves."""

import io
import os
from pathlib import Path

import pyarrow as pa
import pytest

from manifests import storage
from manifests.shards import metadata, read_manifest, whole, write_shards
from manifests.storage import Entry, Remote, place
from tests.faulty_s3 import Fault, FaultyS3


def times(kind: str, count: int, method: str = "") -> "storage.Callable[[str, str], Fault | None]":
    """A plan: the first `count` requests (of this method) go wrong."""
    left = [count]

    def plan(asked: str, path: str) -> Fault | None:
        if left[0] and asked.startswith(method):
            left[0] -= 1
            return Fault(kind, seconds=0.2)
        return None

    return plan


def test_a_path_and_a_uri_name_places() -> None:
    assert place("runs/a") == Path("runs/a")
    assert place("file:///runs/a") == Path("/runs/a")
    assert str(place("memory://runs") / "a" / "b.txt") == "memory://runs/a/b.txt"
    assert (place("memory://runs/a").name, place("memory://runs/a").parent) == ("a", Remote("memory://runs"))


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("nowhere://a/b", "nowhere://a/b: unknown scheme nowhere"),
        ("gs://a/b", "gs://a/b: Please install gcsfs to access Google Storage"),
    ],
)
def test_a_scheme_that_cannot_be_used_is_one_line(uri: str, text: str) -> None:
    with pytest.raises(ValueError) as found:
        place(uri)
    assert str(found.value) == text


def test_any_key_leads_back_to_its_object(s3: FaultyS3, bucket: Remote) -> None:
    names = ["a b.mp4", "é😀.mp4", "q?x=1#f.mp4", "%41::s3.mp4", "st*r[a].mp4"]
    for name in names:
        with whole(bucket / "clips" / name) as temporary:
            temporary.write_text(name)
    with whole(bucket / "clips" / "deep" / "x.mp4") as temporary:
        temporary.write_bytes(b"1")
    entries = (bucket / "clips").entries()
    assert [e.name for e in entries] == sorted([*names, "deep"], key=str.encode)
    for entry in entries:
        if entry.is_folder:
            assert entry == Entry("deep", True, 0, "")
        else:
            assert (bucket / "clips" / entry.name).read_text() == entry.name
            assert entry == (bucket / "clips" / entry.name).info()
            assert entry.stamp.startswith(f"{len(entry.name.encode())}-")
    stamps = {e.name: e.stamp for e in entries}
    with whole(bucket / "clips" / "a b.mp4") as temporary:
        temporary.write_text("A b.mp4")
    changed = {e.name: e.stamp for e in (bucket / "clips").entries()}
    assert [name for name in stamps if changed[name] != stamps[name]] == ["a b.mp4"]


@pytest.mark.parametrize("kind", ["500", "503", "reset", "cut", "slow"])
def test_what_may_pass_is_tried_again(s3: FaultyS3, bucket: Remote, kind: str) -> None:
    content = os.urandom(300_000)
    target = bucket / kind
    s3.plan = times(kind, 2, "PUT")
    with whole(target) as temporary:
        temporary.write_bytes(content)
    s3.plan = times(kind, 2, "GET")
    assert target.read_bytes() == content
    s3.plan = times(kind, 2, "GET")
    read = io.BytesIO()
    target.download(read)
    assert read.getvalue() == content
    assert s3.faults[kind] >= 3


def test_what_stays_wrong_is_one_error_that_names_the_object(s3: FaultyS3, bucket: Remote) -> None:
    target = bucket / "x.bin"
    s3.plan = times("500", 1000)
    with pytest.raises(OSError) as broken:
        target.read_bytes()
    assert broken.value.filename == target.uri
    assert s3.faults["500"] == len(storage.PAUSES_S) + 1
    s3.plan = times("403", 1000)
    with pytest.raises(PermissionError) as refused:
        target.read_bytes()
    assert (refused.value.filename, refused.value.strerror) == (target.uri, "Forbidden")
    assert s3.faults["403"] <= 2  # asking again is of no use
    s3.plan = lambda method, path: None
    with pytest.raises(FileNotFoundError):
        target.read_bytes()
    assert not target.exists()


def test_an_upload_that_fails_leaves_the_old_object(s3: FaultyS3, bucket: Remote) -> None:
    target = bucket / "x"
    with whole(target) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), whole(target) as temporary:  # noqa: PT012 (the block is what breaks)
        temporary.write_text("half")
        raise RuntimeError
    s3.plan = times("reset", 1000, "PUT")
    with pytest.raises(OSError), whole(target) as temporary:
        temporary.write_text("new")
    s3.plan = lambda method, path: None
    assert target.read_text() == "old"


def test_shards_at_a_uri_are_those_of_a_folder(tmp_path: Path, s3: FaultyS3, bucket: Remote) -> None:
    schema = pa.schema([("n", pa.int64())])

    def write(folder: Path | Remote, rows: int) -> None:
        batch = pa.RecordBatch.from_pydict({"n": list(range(rows))}, schema)
        assert write_shards(folder / "manifests", [batch], schema, {"roots": {}}, rows=4) == rows

    for rows in (10, 5):
        write(tmp_path, rows)
        write(bucket / "out", rows)
    local = {path.name: path.read_bytes() for path in tmp_path.glob("manifests/*")}
    assert local == {p.name: p.read_bytes() for p in (bucket / "out" / "manifests").glob("*")}
    assert len(local) == 2
    for path in (bucket / "out", str(bucket / "out" / "manifests")):
        assert read_manifest(path)["n"].to_pylist() == list(range(5))
        assert metadata(path) == {"roots": {}}
    with pytest.raises(ValueError, match="s3://bucket/nowhere: no such file or folder; a run writes its manifest to"):
        read_manifest(bucket / "nowhere")
