from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import schema
from manifests.shards import metadata, read_manifest, whole, write_shards

SCHEMA = pa.schema([pa.field("n", pa.int64(), metadata={"unit": "px"})])


def batches(*sizes: int) -> list[pa.RecordBatch]:
    out, start = [], 0
    for size in sizes:
        out.append(pa.record_batch([pa.array(range(start, start + size))], schema=SCHEMA))
        start += size
    return out


def test_rows_are_split_into_shards_and_read_back_in_order(tmp_path: Path) -> None:
    assert write_shards(tmp_path, batches(7, 0, 9, 4), SCHEMA, {"a": 1}, rows=8) == 20
    assert [pq.read_metadata(p).num_rows for p in sorted(tmp_path.iterdir())] == [8, 8, 4]
    assert read_manifest(tmp_path)["n"].to_pylist() == list(range(20))
    assert metadata(tmp_path) == {"a": 1}
    assert pq.read_schema(tmp_path / "part-00000.parquet").field("n").metadata == {b"unit": b"px"}


def test_bytes_do_not_depend_on_the_batches(tmp_path: Path) -> None:
    write_shards(tmp_path / "a", batches(20), SCHEMA, {}, rows=8)
    write_shards(tmp_path / "b", batches(3, 5, 1, 11), SCHEMA, {}, rows=8)
    for shard in (tmp_path / "a").iterdir():
        assert shard.read_bytes() == (tmp_path / "b" / shard.name).read_bytes()


def test_a_shard_is_written_group_by_group_and_no_more_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manifests.shards.GROUP", 4)
    taken = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal taken
        for batch in batches(*[1] * 21):
            written = sum(path.stat().st_size for path in tmp_path.iterdir())  # the one being written too
            assert written or taken < 4
            taken += 1
            yield batch

    assert write_shards(tmp_path, counted(), SCHEMA, {}, rows=8) == 21
    groups = [pq.read_metadata(path) for path in sorted(tmp_path.iterdir())]
    assert [[g.row_group(i).num_rows for i in range(g.num_row_groups)] for g in groups] == [[4, 4], [4, 4], [4, 1]]
    assert read_manifest(tmp_path)["n"].to_pylist() == list(range(21))


def test_a_shorter_manifest_leaves_no_shard_of_the_longer_one(tmp_path: Path) -> None:
    write_shards(tmp_path, batches(20), SCHEMA, {}, rows=8)
    write_shards(tmp_path, batches(3), SCHEMA, {}, rows=8)
    assert [p.name for p in tmp_path.iterdir()] == ["part-00000.parquet"]
    assert read_manifest(tmp_path).num_rows == 3


def test_an_empty_manifest_has_its_schema(tmp_path: Path) -> None:
    write_shards(tmp_path, [], schema.manifest_schema(), {})
    assert read_manifest(tmp_path).schema.names == schema.manifest_schema().names


def test_a_run_folder_a_manifest_folder_and_a_file_are_accepted(tmp_path: Path) -> None:
    write_shards(tmp_path / "manifests", batches(2), SCHEMA, {})
    for path in (tmp_path, tmp_path / "manifests", tmp_path / "manifests" / "part-00000.parquet"):
        assert read_manifest(path).num_rows == 2


def test_a_folder_without_shards_says_where_runs_put_theirs(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"no Parquet shards; a run writes its manifest to OUTPUT/manifests/part-00000"
    ):
        read_manifest(tmp_path)
    with pytest.raises(ValueError, match="no such file or folder"):
        read_manifest(tmp_path / "nowhere")


def test_a_foreign_parquet_file_is_not_taken_for_a_manifest(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="not a manifest of this project"):
        metadata(tmp_path)


def test_a_file_that_could_not_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_text("old")
    with pytest.raises(RuntimeError), whole(target) as temporary:  # noqa: PT012 (the block is what breaks)
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
