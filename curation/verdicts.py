"""From measurements to verdicts, as SQL over the measurement tables, so that a million clips fit in bounded memory.

The verdict of a clip is the first of these that holds, stage by stage in the table's order: the stage was not measured
(`to_measure`), it failed (`failed`), one of its rules rejects (`rejected`); else the clip is `kept`, unless it is a
duplicate of another that is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from curation.config import DUPLICATE, Config
from curation.errors import Stopped
from curation.store import LISTING, listing_folder, measurement_schema, stage_folder
from manifests.storage import Place, Remote, mirror
from stages.base import Rule, Stage
from stages.staging import own_folder

Retry = Literal["nothing", "transient", "all"]


@dataclass(frozen=True)
class Outcome:
    """One way a clip can end.

    stage: None for kept clips, "listing" for files that could not be offered, "duplicates" for copies of kept clips.
    """

    status: Literal["kept", "rejected", "failed", "to_measure"]
    stage: str | None = None
    rule: Rule | None = None


# Kept by every stage, but its source gives as many clips as `mix` asks for. mix_rank: its place among them, by clip_id,
# which is a hash: the same choice in any order. The limit is its source's, in column mix_limit.
OVER_MIX = Outcome("rejected", "mix", Rule("over_mix", "mix_rank", ">", math.inf))


def outcomes(stages: Sequence[Stage]) -> list[Outcome]:
    """All outcomes; a clip's `code` is an index into this list."""
    found = [Outcome("kept"), Outcome("failed", "listing")]
    for stage in stages:
        found += [Outcome("to_measure", stage.name), Outcome("failed", stage.name)]
        found += [Outcome("rejected", stage.name, rule) for rule in stage.rules]
    return [*found, Outcome("rejected", "duplicates", DUPLICATE), OVER_MIX]


class Measurements:
    """The measurement tables of one output folder under one configuration, joined to the listing.

    The view `verdicts` has the listing's columns, every stage's columns, per stage `<stage>_known` (it has a row of its
    own), and `code`, an index into `outcomes`, by the clip's own measurements alone. After `settle`, the view `decided`
    is the same with the final `code`, which depends on other clips too, `duplicate_of` and `duplicate_similarity`, and
    for clips that are more than their source may give `mix_rank` and `mix_limit`.
    """

    def __init__(self, output: Place, config: Config, engines: Mapping[str, Mapping[str, Any]], retry: Retry) -> None:
        self.stages = [stage for stage, _ in config.stage_table()]
        self.outcomes = outcomes(self.stages)
        self._tables = _local_tables(output, config)
        self._spill = self._tables / ".spill"
        self._db = duckdb.connect(config={"memory_limit": "1GB", "temp_directory": str(self._spill), "threads": "2"})
        self._db.execute("SET preserve_insertion_order = false")
        try:
            self._open(output, config, engines, retry)
        except duckdb.Error as error:
            raise Stopped(f"{output / 'measurements'}: cannot be read: {str(error).splitlines()[0]}") from error

    def _open(self, output: Place, config: Config, engines: Mapping[str, Mapping[str, Any]], retry: Retry) -> None:
        self._table("listing", self._files(listing_folder(output)), LISTING)
        for stage in self.stages:
            folder = stage_folder(output, stage.name, engines[stage.name]["fingerprint"])
            self._table(f"all_{stage.name}", self._files(folder), measurement_schema(stage))
            self._first_wins(stage.name)
        self._db.execute(f"CREATE VIEW verdicts AS {self._verdict_sql(config.thresholds, retry)}")

    def _files(self, folder: Place) -> list[str]:
        """The Parquet files of the folder; copies on this machine of those that lie at a URI."""
        if isinstance(folder, Remote):
            return sorted(map(str, mirror(folder, "*.parquet", self._tables / folder.parent.name / folder.name)))
        return sorted(map(str, folder.glob("*.parquet")))

    def close(self) -> None:
        """Release the database and its spill files."""
        self._db.close()

    def __enter__(self) -> Measurements:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The result of a small query over `verdicts`."""
        return self._db.execute(sql).fetchall()

    def batches(self, sql: str, rows: int = 1000) -> Iterator[pa.RecordBatch]:
        """The result of a large query over `verdicts`, streamed."""
        yield from self._db.cursor().sql(sql).to_arrow_reader(rows)

    def add(self, name: str, added: pa.Table) -> None:
        """Make a table known to the queries by this name."""
        self._db.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM added")  # DuckDB finds `added` by name

    def make(self, name: str, sql: str) -> None:
        """Make the result of a query a table of this name."""
        self._db.execute(f"CREATE OR REPLACE TABLE {name} AS {sql}")

    def settle(self) -> None:
        """Make the view `decided`, in which `reject_duplicates` and then `reject_over_mix` change verdicts."""
        similar = {"duplicate_of": "VARCHAR", "duplicate_similarity": "DOUBLE"}
        types = similar | {"mix_rank": "BIGINT", "mix_limit": "BIGINT"}
        columns = ", ".join(f"CAST(NULL AS {type_}) AS {name}" for name, type_ in types.items())
        self.make("fates", f"SELECT clip_id, code, {columns} FROM verdicts")
        self._db.execute(
            "CREATE OR REPLACE VIEW decided AS SELECT v.* EXCLUDE (code), f.* EXCLUDE (clip_id) "
            "FROM verdicts v JOIN fates f ON v.clip_id = f.clip_id"
        )

    def reject_duplicates(self, found: pa.Table) -> None:
        """Reject the clips of `found`, as `curation.duplicates` gives it."""
        self.add("found", found)
        code = next(i for i, outcome in enumerate(self.outcomes) if outcome.rule is DUPLICATE)
        self._db.execute(
            f"UPDATE fates SET code = {code}, duplicate_of = found.duplicate_of, "
            "duplicate_similarity = found.duplicate_similarity FROM found WHERE fates.clip_id = found.clip_id"
        )

    def reject_over_mix(self, mix: Mapping[str, int]) -> None:
        """Reject the kept clips that are more than their source may give; their ids, which are hashes, choose."""
        if not mix:
            return
        self._db.execute("CREATE OR REPLACE TABLE mix (source VARCHAR, mix_limit BIGINT)")
        self._db.executemany("INSERT INTO mix VALUES (?, ?)", list(mix.items()))
        self._db.execute(
            f"""UPDATE fates SET code = {self.outcomes.index(OVER_MIX)}, mix_rank = o.mix_rank, mix_limit = o.mix_limit
            FROM (
                SELECT clip_id, mix.mix_limit, row_number() OVER (PARTITION BY source ORDER BY clip_id) AS mix_rank
                FROM decided d JOIN mix USING (source) WHERE code = 0
            ) o
            WHERE fates.clip_id = o.clip_id AND o.mix_rank > o.mix_limit"""
        )

    def _table(self, name: str, files: list[str], schema: pa.Schema) -> None:
        """A view over Parquet files, or an empty table where there are none yet."""
        if files:
            quoted = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
            self._db.execute(
                f"CREATE VIEW {name} AS SELECT * FROM read_parquet([{quoted}], filename=true, "
                "file_row_number=true, hive_partitioning=false)"
            )
        else:
            empty = schema.empty_table()  # noqa: F841 (DuckDB finds it by name)
            self._db.execute(f"CREATE TABLE {name} AS SELECT *, '' AS filename, 0 AS file_row_number FROM empty")

    def _first_wins(self, stage: str) -> None:
        """One row a clip: a success before a failure, a permanent failure before a transient one, then the earliest."""
        repeated = self._db.execute(f"SELECT count(*) > count(DISTINCT (clip_id, stamp)) FROM all_{stage}").fetchone()
        if not (repeated and repeated[0]):
            self._db.execute(f"CREATE VIEW m_{stage} AS SELECT * FROM all_{stage}")
            return
        self._db.execute(
            f"""CREATE TABLE first_{stage} AS SELECT filename, file_row_number FROM (
                SELECT filename, file_row_number, row_number() OVER (
                    PARTITION BY clip_id, stamp
                    ORDER BY error IS NOT NULL, coalesce(transient, false), filename, file_row_number) AS place
                FROM all_{stage}) WHERE place = 1"""
        )
        self._db.execute(
            f"CREATE VIEW m_{stage} AS SELECT * FROM all_{stage} "
            f"SEMI JOIN first_{stage} USING (filename, file_row_number)"
        )

    def _verdict_sql(self, thresholds: Mapping[str, float], retry: Retry) -> str:
        cases: list[str] = []
        joins: list[str] = []
        columns = [f"l.{name}" for name in LISTING.names]
        for code, outcome in enumerate(self.outcomes):
            table = f"m_{outcome.stage}"
            if outcome.status == "failed":
                test = "l.problem IS NOT NULL" if outcome.stage == "listing" else f"{table}.error IS NOT NULL"
            elif outcome.status == "to_measure":
                again = {"nothing": "false", "transient": f"{table}.transient", "all": f"{table}.error IS NOT NULL"}
                test = f"{table}.clip_id IS NULL OR coalesce({again[retry]}, false)"
            elif outcome.rule is not None and outcome is not OVER_MIX and outcome.rule is not DUPLICATE:
                limit = float(outcome.rule.limit(thresholds))
                test = f"CAST({table}.{outcome.rule.column} AS DOUBLE) {outcome.rule.op} CAST('{limit!r}' AS DOUBLE)"
            else:
                continue
            cases.append(f"WHEN {test} THEN {code}")
        for stage in self.stages:
            table = f"m_{stage.name}"
            joins.append(f"LEFT JOIN {table} ON l.clip_id = {table}.clip_id AND l.stamp = {table}.stamp")
            columns += [f"{table}.{field.name}" for field in stage.fields]
            columns += [
                f"({table}.clip_id IS NOT NULL AND {table}.error IS NULL) AS {stage.name}_known",
                f"{table}.error AS {stage.name}_error",
            ]
        return (
            f"SELECT {', '.join(columns)}, CASE {' '.join(cases)} ELSE 0 END AS code FROM listing l {' '.join(joins)}"
        )


def _local_tables(output: Place, config: Config) -> Path:
    """Where the tables lie that DuckDB reads: of an output folder at a URI, copies in the cache's folder, which stay
    there for the next time. DuckDB would read them anew for each query."""
    if not isinstance(output, Remote):
        return output / "measurements"
    name = hashlib.blake2b(output.uri.encode(), digest_size=8).hexdigest()
    return own_folder(config.storage.folder()) / "tables" / name
