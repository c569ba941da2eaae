"""Reading and writing the Parquet shards of a manifest."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.storage import Place, Remote, place

METADATA_KEY = b"human_motion"
GROUP = 5_000  # rows of a row group


@contextmanager
def whole(path: Place) -> Iterator[Path]:
    """A temporary local path whose content takes the place of `path` when the block ends well, and is removed when it
    does not. It is on the disk before it has the name, so that no loss of power leaves half a file either."""
    if isinstance(path, Remote):
        with tempfile.TemporaryFile() as file:  # it has no name that a killed process could leave behind
            local = Path(f"/proc/self/fd/{file.fileno()}")
            yield local
            path.upload(local)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)  # noqa: PTH105
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Place) -> None:
    """Remove what killed processes left of `whole` in a folder and those below it; a storage has no such objects."""
    if isinstance(folder, Path):
        for inside, _, names in os.walk(folder):
            for name in names:
                if name.startswith(".") and name.endswith(".tmp"):
                    Path(inside, name).unlink(missing_ok=True)


def write_table(path: Place, table: pa.Table) -> None:
    """One Parquet file, whole or not at all."""
    with whole(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_shards(
    folder: Place,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    metadata: dict[str, Any],
    rows: int = 50_000,
) -> int:
    """Write `batches` as part-00000.parquet, ... of at most `rows` rows each, and return the number of rows.

    rows: fewer than a group of GROUP rows, or whole groups.
    At least one shard is written, so an empty manifest still has its schema. Each shard appears whole; shards left
    from an earlier, longer manifest are removed. The same rows give the same bytes however they were batched. What is
    held is one group, which with all embeddings takes 40 MB.
    """
    assert rows <= GROUP or rows % GROUP == 0
    schema = schema.with_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True, allow_nan=False)})
    written: set[str] = set()
    total = 0
    groups = _chunks(batches, schema, min(rows, GROUP))
    group = next(groups)
    while group is not None:
        name = f"part-{len(written):05d}.parquet"
        with whole(folder / name) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            in_shard = 0
            while group is not None and in_shard < rows:
                writer.write_table(group.cast(schema))
                in_shard += group.num_rows
                group = None  # before the next is gathered
                group = next(groups, None)
        total += in_shard
        written.add(name)
    for stale in folder.glob("part-*.parquet"):
        if stale.name not in written:
            stale.unlink()
    return total


def _chunks(batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """Tables of exactly `rows` rows, the last one shorter; one empty table when there is nothing."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    any_out = False
    for batch in batches:
        waiting.append(batch)
        count += batch.num_rows
        while count >= rows:
            table = pa.Table.from_batches(waiting)
            waiting = table.slice(rows).to_batches()
            table = table.slice(0, rows).combine_chunks()
            yield table
            del table
            any_out = True
            count -= rows
    if count or not any_out:
        yield (pa.Table.from_batches(waiting) if waiting else schema.empty_table()).combine_chunks()


def shards(path: str | Place) -> list[Place]:
    """The shards at `path`, a local one or a URI: one file, a folder of them, or the output folder of a run (its kept
    clips).

    Raises ValueError with one line when there are none.
    """
    path = place(path)
    if path.is_file():
        return [path]
    for folder in (path / "manifests", path):
        found: list[Place] = sorted(folder.glob("*.parquet"), key=str)
        if found:
            return found
    what = "no Parquet shards" if path.is_dir() else "no such file or folder"
    raise ValueError(f"{path}: {what}; a run writes its manifest to OUTPUT/manifests/part-00000.parquet")


def read_manifest(path: str | Place, columns: list[str] | None = None) -> pa.Table:
    """All rows of the shards at `path` (see `shards`), with the first shard's metadata."""
    return pa.concat_tables(read_table(shard, columns) for shard in shards(path))


def read_table(shard: Place, columns: list[str] | None = None) -> pa.Table:
    """The rows of one Parquet file."""
    if isinstance(shard, Path):
        return pq.read_table(shard, columns=columns)
    with shard.open() as file:
        return pq.read_table(file, columns=columns)


def read_schema(shard: Place) -> pa.Schema:
    """The schema of one Parquet file."""
    if isinstance(shard, Path):
        return pq.read_schema(shard)
    with shard.open() as file:
        return pq.read_schema(file)


def metadata(path: str | Place) -> dict[str, Any]:
    """The metadata that the run wrote into the shards: roots, frames, engines, thresholds, schema version."""
    first = shards(path)[0]
    found = (read_schema(first).metadata or {}).get(METADATA_KEY)
    if found is None:
        raise ValueError(
            f"{first}: not a manifest of this project: its Parquet metadata has no {METADATA_KEY.decode()}"
        )
    return json.loads(found)
