"""Where clips can still be found: a search through everything an output folder, an export or a cache holds."""

from __future__ import annotations

import html
import itertools
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.storage import Place
from manifests.trees import files_below, local_copy

CLIP_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
PART_BYTES = 1 << 24  # of a file held at a time
OVERLAP_BYTES = 1 << 13  # longer than any path


@dataclass(frozen=True)
class Needles:
    """What to search for: the ids of clips, and the paths of files that no other clip comes from."""

    ids: frozenset[bytes]
    paths: re.Pattern[bytes] | None

    @classmethod
    def of(cls, clips: Mapping[str, tuple[str, str]], others: Iterable[str]) -> Needles:
        """`clips`: (source, path) by clip id. `others`: paths, in any source, of clips that stay."""
        stay = set(others)
        paths = {path for _, path in clips.values()} - stay
        # "a.mp4" is no trace where it is the end of "b/a.mp4" of a clip that stays.
        ends = {path for path in paths if any(other.endswith(f"/{path}") for other in stay)}
        patterns = [rf"(?<![\w.%-])(?:{_any(paths - ends)})", rf"(?<![\w.%/-])(?:{_any(ends)})"]
        given = [pattern for pattern, of in zip(patterns, (paths - ends, ends), strict=True) if of]
        whole_path = re.compile(rf"(?:{'|'.join(given)})(?![\w.%-])".encode()) if given else None
        return cls(frozenset(clip_id.encode() for clip_id in clips), whole_path)

    def found_in(self, text: bytes) -> bool:
        return bool(self.ids.intersection(CLIP_ID.findall(text)) or (self.paths and self.paths.search(text)))


def _any(paths: set[str]) -> str:
    """A pattern for any of the paths, as they stand in plain text, JSON and HTML."""
    written = {form for path in paths for form in (path, json.dumps(path)[1:-1], html.escape(path))}
    return "|".join(re.escape(path) for path in sorted(written, key=len, reverse=True))


def search(folder: Place, needles: Needles) -> Iterator[tuple[Place, bool]]:
    """Every file under `folder`, and whether its name or anything in it tells of the clips.

    Parquet files and the files in tars are looked into; what else is compressed is searched by its name alone.
    """
    for file in files_below(folder):
        name = str(file)[len(str(folder)) + 1 :].encode("utf-8", "surrogateescape")
        with local_copy(file) as path:
            yield file, any(map(needles.found_in, itertools.chain([name], _texts(path, file.name))))


def _texts(path: Path, name: str) -> Iterator[bytes]:
    if name.endswith(".parquet"):
        yield from _parquet(path)
    elif name.endswith(".tar"):
        yield from _tar(path)
    else:
        yield from _parts(path)


def _parquet(path: Path) -> Iterator[bytes]:
    with pq.ParquetFile(path) as file:
        metadata = file.schema_arrow.metadata or {}
        yield from metadata.values()
        for batch in file.iter_batches(batch_size=1024):
            for column in batch.columns:
                yield from map(b"\n".join, _strings(column))


def _strings(column: pa.Array) -> Iterator[list[bytes]]:
    """The texts in a column, also in its lists and structures; bytes (videos) are not text."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        yield [text.encode() for text in column.to_pylist() if text is not None]
    elif pa.types.is_struct(column.type):
        for index in range(column.type.num_fields):
            yield from _strings(column.field(index))
    elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        yield from _strings(column.flatten())


def _tar(path: Path) -> Iterator[bytes]:
    with tarfile.open(path) as tar:
        for member in tar:
            yield member.name.encode()
            if member.name.endswith(".json") and (file := tar.extractfile(member)) is not None:
                yield file.read()


def _parts(path: Path) -> Iterator[bytes]:
    """The file's bytes in overlapping parts, so that what lies across two is found."""
    kept = b""
    with path.open("rb") as file:
        while part := file.read(PART_BYTES):
            yield kept + part
            kept = part[-OVERLAP_BYTES:]
