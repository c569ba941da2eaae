"""Puts small measurement files together, so that a folder of a million clips opens in seconds.

A run appends a file a stage at every flush. Neighbours in the order of their names are merged into one of the first's
time, row after row, so that the order by which the first row of a clip wins stays the same. The merged file is there
before the others go: killed at any time, every row is still there, some twice, which changes nothing. Only for who
alone writes to the output folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.damaged import original_name, write_measured
from curation.tables import local_files
from manifests.storage import Place

SMALL = 32 * 2**20  # bytes; larger files are left alone
LEAST = 32  # small files in a folder that are worth merging
LARGEST = 128 * 2**20  # bytes that are merged into one


def compact(folders: Iterable[Place], tables: Path) -> None:
    """Merge the small files of each folder that has many. tables: where copies of those at URIs lie, see
    `curation.tables.local_tables`."""
    for folder in folders:
        files = [(path, path.stat().st_size) for path in map(Path, local_files(folder, tables))]
        if sum(size < SMALL for _, size in files) >= LEAST:
            for group in _runs(files):
                _merge(folder, group)


def _runs(files: list[tuple[Path, int]]) -> Iterator[list[Path]]:
    """Neighbours that are small, two and more together, up to LARGEST."""
    group: list[Path] = []
    total = 0
    for path, size in [*files, (Path(), LARGEST)]:
        if size >= SMALL or total + size > LARGEST:
            if len(group) > 1:
                yield group
            group, total = [], 0
        if size < SMALL:
            group.append(path)
            total += size


def _merge(folder: Place, group: list[Path]) -> None:
    """Put the files of the folder together that `group` names, or copies of which it names."""
    schema = pq.read_schema(group[0])
    content = pa.BufferOutputStream()
    with pq.ParquetWriter(content, schema, compression="zstd") as writer:
        for path in group:
            writer.write_table(pq.read_table(path, schema=schema, partitioning=None))
    write_measured(folder, group[0].name.partition("-")[0], content.getvalue())
    for path in group:
        (folder / original_name(path)).unlink()
