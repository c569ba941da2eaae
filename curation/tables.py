"""The measurement tables of an output folder as relations of a DuckDB database, in bounded memory.

A join of a million clips over all stages does not fit: its hash tables alone take more. So joins go part by part over
ranges of clip_id, which is a hash; before whole rows are read, the stages' tables are dealt out into files by part.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.config import Config
from curation.damaged import DAMAGED, is_sound, original_name
from curation.errors import Stopped
from curation.store import LISTING, listing_folder, measurement_schema, stage_folder
from manifests.storage import Place, Remote
from manifests.trees import mirror
from stages.base import Stage
from stages.staging import own_folder

PART = 25_000  # clips of a part whose rows are joined whole: 200 MB with all embeddings
DEALT_BYTES = 64 * 2**20
NARROW_PART = 250_000  # clips of a part when but keys and numbers are joined


class Tables:
    """`listing`, and per stage `m_<stage>`: at most one row a clip and stamp. `clips`: how many are listed."""

    def __init__(self, output: Place, config: Config, engines: Mapping[str, Mapping[str, Any]]) -> None:
        self.stages = [stage for stage, _ in config.stage_table()]
        self._tables = local_tables(output, config)
        spill = self._tables / ".spill"
        self._db = duckdb.connect(config={"memory_limit": "1GB", "temp_directory": str(spill), "threads": "2"})
        self._db.execute("SET preserve_insertion_order = false")
        self._dealt: tempfile.TemporaryDirectory[str] | None = None
        self._measured: list[str] = []  # stages that have rows
        with self._stopping(output):
            self._table("listing", self._files(listing_folder(output)), LISTING)
            for stage in self.stages:
                folder = stage_folder(output, stage.name, engines[stage.name]["fingerprint"])
                self._table(f"all_{stage.name}", self._files(folder), measurement_schema(stage))
                self._first_wins(stage.name)
            self.clips: int = self.rows("SELECT count(*) FROM listing")[0][0]

    @contextlib.contextmanager
    def _stopping(self, output: Place) -> Iterator[None]:
        try:
            yield
        except duckdb.Error as error:
            self._db.close()
            raise Stopped(f"{output / 'measurements'}: cannot be read: {str(error).splitlines()[0]}") from error

    def _files(self, folder: Place) -> list[str]:
        files = local_files(folder, self._tables)
        if damaged := [path for path in map(Path, files) if not is_sound(path)]:
            self._db.close()
            raise Stopped(f"{folder}: {original_name(damaged[0])} is damaged; curation.run measures its clips anew")
        return files

    def close(self) -> None:
        """Release the database and its spill files."""
        self._db.close()
        if self._dealt is not None:
            self._dealt.cleanup()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The result of a small query."""
        return self._db.execute(sql).fetchall()

    def batches(self, sql: str, rows: int = 1000) -> Iterator[pa.RecordBatch]:
        """The result of a large query, streamed."""
        yield from self._db.cursor().sql(sql).to_arrow_reader(rows)

    def add(self, name: str, added: pa.Table) -> None:
        """Make a table known to the queries by this name."""
        self._db.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM added")  # DuckDB finds `added` by name

    def make(self, name: str, sql: str) -> None:
        """Make the result of a query a table of this name."""
        self._db.execute(f"CREATE OR REPLACE TABLE {name} AS {sql}")

    def joined(self, base: str, stages: Sequence[Stage], within: str = "true", part: int | None = None) -> str:
        """SQL of all columns of the clips of `base` for which `within`, a test of clip_id, holds.

        base: a relation with the columns clip_id, stamp, and others that need not be looked up again. part: one that
        holds the clips `within`, when the tables have been dealt out.
        """
        known = set(self._db.sql(f"SELECT * FROM {base} LIMIT 0").columns)
        columns = ["b.*", *(f"l.{name}" for name in LISTING.names if name not in known)]
        joins = [f"JOIN (SELECT * FROM listing WHERE {within}) l ON b.clip_id = l.clip_id"]
        for stage in stages:
            table = f"m_{stage.name}"
            source = table if part is None else self._part(stage.name, part)
            joins.append(
                f"LEFT JOIN (SELECT * FROM {source} WHERE {within}) {table} "
                f"ON b.clip_id = {table}.clip_id AND b.stamp = {table}.stamp"
            )
            columns += [f"{table}.{field.name}" for field in stage.fields if field.name not in known]
            columns.append(f"{table}.error AS {stage.name}_error")
        return f"SELECT {', '.join(columns)} FROM (SELECT * FROM {base} WHERE {within}) b {' '.join(joins)}"

    def ranges(self, largest: int) -> list[str]:
        """Tests of clip_id that part all clips, in the order of their ids, into about `largest` each at most."""
        count = max(1, -(-self.clips // largest))
        if count == 1:
            return ["true"]
        bounds = [f"{-(-i * 65536 // count):04x}" for i in range(count)]  # as `_deal` rounds
        below = [*(f"clip_id < '{high}'" for high in bounds[1:]), "true"]
        return [f"clip_id >= '{low}' AND {high}" for low, high in zip(bounds, below, strict=True)]

    def parts(self) -> Iterator[tuple[str, int | None]]:
        """The parts that whole rows are joined in, in the order of ids: `within` and `part` of `joined`."""
        ranges = self.ranges(PART)
        yield from ((within, None if len(ranges) == 1 else part) for part, within in enumerate(ranges))

    def _part(self, stage: str, part: int) -> str:
        """The relation of one part of a stage's table, which is dealt out into files by part first: in one pass.

        What a killed process leaves of them bears names that the next run removes (`curation.lock`).
        """
        if stage not in self._measured:
            return f"none_{stage}"
        if self._dealt is None:
            self._dealt = tempfile.TemporaryDirectory(dir=self._tables, prefix=".parts-")
        folder = Path(self._dealt.name, stage)
        if not folder.exists():
            folder.mkdir()
            self._deal(stage, folder)
        file = folder / f".{part}.tmp"
        return f"read_parquet('{_quoted(str(file))}')" if file.exists() else f"none_{stage}"

    def _deal(self, stage: str, folder: Path) -> None:
        """Write the rows of each part of a stage's table into a file of its own, DEALT_BYTES of all parts at a time.

        DuckDB's PARTITION_BY does the same, but holds each file's rows back until they fill a row group.
        """
        count = len(self.ranges(PART))
        part = f"CAST('0x' || clip_id[:4] AS INTEGER) * {count} // 65536 AS part"
        rows = self.batches(f"SELECT * EXCLUDE (filename, file_row_number), {part} FROM m_{stage}")
        writers: dict[int, pq.ParquetWriter] = {}
        try:
            for table in _gathered(rows, DEALT_BYTES):
                parts, dealt = table["part"].to_numpy(), table.drop_columns("part")
                for number in np.unique(parts).tolist():
                    if number not in writers:
                        path = folder / f".{number}.tmp"
                        writers[number] = pq.ParquetWriter(path, dealt.schema, compression="lz4", use_dictionary=False)
                    writers[number].write_table(dealt.filter(pa.array(parts == number)))
        finally:
            for writer in writers.values():
                writer.close()

    def _table(self, name: str, files: list[str], schema: pa.Schema) -> None:
        """A view over Parquet files, or an empty table where there are none yet."""
        empty = schema.empty_table()  # noqa: F841 (DuckDB finds it by name)
        stage = name.removeprefix("all_")
        self._db.execute(f"CREATE TABLE none_{stage} AS SELECT *, '' AS filename, 0 AS file_row_number FROM empty")
        source = f"none_{stage}"
        if files:
            self._measured += [stage] if stage != name else []
            source = f"read_parquet([{_list(files)}], filename=true, file_row_number=true, hive_partitioning=false)"
        self._db.execute(f"CREATE VIEW {name} AS SELECT * FROM {source}")

    def _first_wins(self, stage: str) -> None:
        """One row a clip: a success before a failure, a permanent failure before a transient one, then the earliest."""
        self._db.execute(
            f"""CREATE TABLE later_{stage} AS SELECT filename, file_row_number FROM (
                SELECT filename, file_row_number, row_number() OVER (
                    PARTITION BY clip_id, stamp
                    ORDER BY error IS NOT NULL, coalesce(transient, false), filename, file_row_number) AS place
                FROM all_{stage} SEMI JOIN (
                    SELECT clip_id, stamp FROM all_{stage} GROUP BY ALL HAVING count(*) > 1
                ) USING (clip_id, stamp)) WHERE place > 1"""
        )
        again = self.rows(f"SELECT 1 FROM later_{stage} LIMIT 1")
        left_out = f"ANTI JOIN later_{stage} USING (filename, file_row_number)" if again else ""
        self._db.execute(f"CREATE VIEW m_{stage} AS SELECT * FROM all_{stage} {left_out}")


def _gathered(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Tables of about `size` bytes."""
    waiting: list[pa.RecordBatch] = []
    total = 0
    for batch in batches:
        waiting.append(batch)
        total += batch.nbytes
        if total >= size:
            yield pa.Table.from_batches(waiting)
            waiting, total = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def _list(files: Any) -> str:
    return ", ".join(f"'{_quoted(file)}'" for file in files)


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def local_files(folder: Place, tables: Path) -> list[str]:
    """The Parquet files of a folder; copies below `tables`, see `local_tables`, of those that lie at a URI, fetched
    again where they were damaged."""
    if not isinstance(folder, Remote):
        return sorted(map(str, folder.glob("*.parquet")))
    into = tables / folder.parent.name / folder.name
    for path in mirror(folder, "*.parquet", into):
        if not is_sound(path):
            path.unlink()
    return sorted(map(str, mirror(folder, "*.parquet", into)))


def set_aside(folders: Iterable[Place], tables: Path) -> None:
    """Rename the damaged files of these folders, so that nobody reads them, and say so."""
    for folder in folders:
        for path in map(Path, local_files(folder, tables)):
            if is_sound(path):
                continue
            name = original_name(path)
            if isinstance(folder, Path):
                path.rename(path.with_name(name + DAMAGED))
            else:
                (folder / (name + DAMAGED)).upload(path)
                (folder / name).unlink()
            told = f"{folder / name} is damaged: set aside as {name}{DAMAGED}, its clips are measured anew"
            print(told, file=sys.stderr)


def local_tables(output: Place, config: Config) -> Path:
    """Where the tables lie that DuckDB reads: of an output folder at a URI, copies in the cache's folder, which stay
    there for the next time. DuckDB would read them anew for each query."""
    if not isinstance(output, Remote):
        return output / "measurements"
    name = hashlib.blake2b(output.uri.encode(), digest_size=8).hexdigest()
    return own_folder(config.storage.folder()) / "tables" / name
