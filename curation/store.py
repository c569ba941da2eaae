"""Measurements on disk: one append-only table per stage and fingerprint, and the listing they belong to.

    OUT/measurements/listing/part-00000.parquet               the clips of the last run
    OUT/measurements/<stage>/<fingerprint>/<time>-<hash of the content>.parquet

Rows are keyed by (clip_id, stamp). A row says either what was measured or, in `error`, why it could not be; `transient`
errors are measured again by the next run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.damaged import write_measured
from manifests.schema import INDEXED, LISTED, fields
from manifests.shards import write_shards
from manifests.storage import Place
from stages.base import Stage
from stages.clip import Clip, Entry

LISTING = pa.schema(
    [
        *fields("clip_id", "source", "path", "kind", *LISTED, *INDEXED),
        pa.field("stamp", pa.string()),
        pa.field("problem", pa.string()),
    ]
)


def measurement_schema(stage: Stage) -> pa.Schema:
    """Columns of a stage's table."""
    key = [*fields("clip_id"), pa.field("stamp", pa.string())]
    return pa.schema([*key, *stage.fields, pa.field("error", pa.string()), pa.field("transient", pa.bool_())])


def write_listing(output: Place, clips: Iterable[Clip]) -> int:
    """Write the listing in place of the last one, in bounded memory, and return the number of clips."""

    def batches() -> Iterator[pa.RecordBatch]:
        rows: list[dict[str, Any]] = []
        for clip in clips:
            rows.append(
                {
                    "clip_id": clip.clip_id,
                    "source": clip.source,
                    "path": clip.path,
                    "kind": clip.kind,
                    "source_span": clip.span,
                    "source_box": clip.box,
                    "folder_fps": clip.folder_fps,
                    "video_id": clip.entry.video_id,
                    "index_span": clip.entry.span,
                    "index_box": clip.entry.box,
                    **clip.entry.texts,
                    "stamp": clip.stamp,
                    "problem": clip.problem,
                }
            )
            if len(rows) == 10_000:
                yield pa.RecordBatch.from_pylist(rows, LISTING)
                rows.clear()
        yield pa.RecordBatch.from_pylist(rows, LISTING)

    return write_shards(listing_folder(output), batches(), LISTING, {}, rows=1_000_000)


def listing_folder(output: Place) -> Place:
    return output / "measurements" / "listing"


def clip_of(row: dict[str, Any]) -> Clip:
    """The clip that a row of the listing describes."""
    return Clip(
        source=row["source"],
        path=row["path"],
        kind=row["kind"],
        stamp=row["stamp"],
        span=tuple(row["source_span"]) if row["source_span"] else None,
        box=tuple(row["source_box"]) if row["source_box"] else None,
        problem=row["problem"],
        folder_fps=row["folder_fps"],
    )


def entry_of(row: dict[str, Any]) -> Entry:
    """What the source's index says of the clip in a row of the listing."""
    span, box = row["index_span"], row["index_box"]
    texts = {name: row[name] for name in INDEXED if name.startswith("text_") and row[name] is not None}
    return Entry(row["video_id"], tuple(span) if span else None, tuple(box) if box else None, texts)


def stage_folder(output: Place, stage: str, fingerprint: str) -> Place:
    return output / "measurements" / stage / fingerprint


class Recorder:
    """Collects measured rows and appends them to the stages' tables, whole files at a time.

    What is not flushed yet is lost when the driver is killed, and measured again: at most the last 2 % of the time the
    run has taken, and never more than `seconds`.
    """

    def __init__(self, output: Place, stages: dict[str, tuple[Stage, str]], rows: int = 2000, seconds: float = 60.0):
        self._output = output
        self._stages = stages
        self._limit = rows
        self._seconds = seconds
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in stages}
        self._started = self._flushed = time.monotonic()

    def add(self, rows: dict[str, dict[str, Any]]) -> None:
        """Take one clip's new rows, by stage."""
        for stage, row in rows.items():
            self.hold(stage, row)
        waiting = sum(map(len, self._rows.values()))
        now = time.monotonic()
        if waiting >= self._limit or now - self._flushed > min(self._seconds, 0.02 * (now - self._started)):
            self.flush()

    def hold(self, stage: str, row: dict[str, Any]) -> None:
        """Take one row for the next flush."""
        self._rows[stage].append(row)

    def flush(self) -> None:
        """Write what has been collected."""
        for name, rows in self._rows.items():
            if rows:
                stage, fingerprint = self._stages[name]
                folder = stage_folder(self._output, name, fingerprint)
                content = pa.BufferOutputStream()
                table = pa.Table.from_pylist(rows, schema=measurement_schema(stage))
                pq.write_table(table, content, compression="zstd")
                write_measured(folder, f"{time.time_ns():020d}", content.getvalue())
                rows.clear()
        self._flushed = time.monotonic()
