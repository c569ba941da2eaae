"""From measurements to verdicts, as SQL over the measurement tables (`curation.tables`).

The verdict of a clip is the first of these that holds, stage by stage in the table's order: the stage was not measured
(`to_measure`), it failed (`failed`), one of its rules rejects (`rejected`); else the clip is `kept`, unless it is a
duplicate of another that is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import duckdb
import pyarrow as pa

from curation.config import DUPLICATE, Config
from curation.errors import Stopped
from curation.tables import NARROW_PART, Tables
from manifests.storage import Place
from stages.base import Rule, Stage

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


class Measurements(Tables):
    """The measurement tables of one output folder under one configuration, joined to the listing.

    The table `facts` has of every clip what is asked of all of them: clip_id, stamp, source, path, kind, video_id, the
    numbers that the stages measured, per stage `<stage>_known` (it has a row of its own), `code`, an index into
    `outcomes`, by the clip's own measurements alone, and `error` where it failed. After `settle`, `decided` is the same
    with the final `code`, which depends on other clips too, `duplicate_of` and `duplicate_similarity`, and for clips
    that are more than their source may give `mix_rank` and `mix_limit`. `whole` gives whole rows.
    """

    def __init__(self, output: Place, config: Config, engines: Mapping[str, Mapping[str, Any]], retry: Retry) -> None:
        super().__init__(output, config, engines)
        self.outcomes = outcomes(self.stages)
        with self._stopping(output):
            for number, within in enumerate(self.ranges(NARROW_PART)):
                select = self._facts_sql(config.thresholds, retry, within)
                self.rows(f"INSERT INTO facts {select}" if number else f"CREATE TABLE facts AS {select}")

    def __enter__(self) -> Measurements:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close()
        if isinstance(error, duckdb.Error):  # no room to spill, say
            raise Stopped(f"{self._tables}: {str(error).splitlines()[0]}") from error

    def whole(
        self, base: str, where: str = "true", columns: str = "*", stages: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Whole rows of the clips of `base` (facts, decided or a view on it) for which `where` holds, in the order of
        their ids, streamed: base's columns, the listing's, and those of `stages` (all), with each `<stage>_error`."""
        for sql in self._whole(base, where, columns, stages):
            yield from self.batches(f"{sql} ORDER BY clip_id")

    def make_whole(self, name: str, base: str, where: str, columns: str, stages: Sequence[str]) -> None:
        """Make a table of this name of such rows."""
        for number, sql in enumerate(self._whole(base, where, columns, stages)):
            self.rows(f"INSERT INTO {name} {sql}" if number else f"CREATE OR REPLACE TABLE {name} AS {sql}")

    def _whole(self, base: str, where: str, columns: str, stages: Sequence[str] | None) -> Iterator[str]:
        needed = [stage for stage in self.stages if stages is None or stage.name in stages]
        for within, part in self.parts():
            yield f"SELECT {columns} FROM ({self.joined(base, needed, within, part)}) WHERE {where}"

    def clip_rows(self, base: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The whole rows of a few clips of `base`, by clip_id."""
        if not ids:
            return {}
        listed = ", ".join("'" + clip_id.replace("'", "''") + "'" for clip_id in ids)
        batches = self.batches(self.joined(base, self.stages, f"clip_id IN ({listed})"))
        return {row["clip_id"]: row for batch in batches for row in batch.to_pylist()}

    def settle(self) -> None:
        """Make the view `decided`, in which `reject_duplicates` and then `reject_over_mix` change verdicts."""
        similar = {"duplicate_of": "VARCHAR", "duplicate_similarity": "DOUBLE"}
        types = similar | {"mix_rank": "BIGINT", "mix_limit": "BIGINT"}
        columns = ", ".join(f"CAST(NULL AS {type_}) AS {name}" for name, type_ in types.items())
        self.make("fates", f"SELECT clip_id, code, {columns} FROM facts")
        self.rows(
            "CREATE OR REPLACE VIEW decided AS SELECT v.* EXCLUDE (code), f.* EXCLUDE (clip_id) "
            "FROM facts v JOIN fates f ON v.clip_id = f.clip_id"
        )

    def reject_duplicates(self, found: pa.Table) -> None:
        """Reject the clips of `found`, as `curation.duplicates` gives it."""
        self.add("found", found)
        code = next(i for i, outcome in enumerate(self.outcomes) if outcome.rule is DUPLICATE)
        self.rows(
            f"UPDATE fates SET code = {code}, duplicate_of = found.duplicate_of, "
            "duplicate_similarity = found.duplicate_similarity FROM found WHERE fates.clip_id = found.clip_id"
        )

    def reject_over_mix(self, mix: Mapping[str, int]) -> None:
        """Reject the kept clips that are more than their source may give; their ids, which are hashes, choose."""
        if not mix:
            return
        self._db.execute("CREATE OR REPLACE TABLE mix (source VARCHAR, mix_limit BIGINT)")
        self._db.executemany("INSERT INTO mix VALUES (?, ?)", list(mix.items()))
        self.rows(
            f"""UPDATE fates SET code = {self.outcomes.index(OVER_MIX)}, mix_rank = o.mix_rank, mix_limit = o.mix_limit
            FROM (
                SELECT clip_id, mix.mix_limit, row_number() OVER (PARTITION BY source ORDER BY clip_id) AS mix_rank
                FROM decided d JOIN mix USING (source) WHERE code = 0
            ) o
            WHERE fates.clip_id = o.clip_id AND o.mix_rank > o.mix_limit"""
        )

    def _facts_sql(self, thresholds: Mapping[str, float], retry: Retry, within: str) -> str:
        cases: list[str] = []
        errors: list[str] = []
        joins: list[str] = []
        columns = ["l.clip_id", "l.stamp", "l.source", "l.path", "l.kind", "l.video_id"]
        for code, outcome in enumerate(self.outcomes):
            table = f"m_{outcome.stage}"
            if outcome.status == "failed":
                error = "l.problem" if outcome.stage == "listing" else f"{table}.error"
                test = f"{error} IS NOT NULL"
                errors.append(f"WHEN {code} THEN {error}")
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
            joins.append(
                f"LEFT JOIN (SELECT * FROM {table} WHERE {within}) {table} "
                f"ON l.clip_id = {table}.clip_id AND l.stamp = {table}.stamp"
            )
            columns += [f"{table}.{field.name}" for field in stage.fields if is_number(field.type)]
            columns.append(f"({table}.clip_id IS NOT NULL AND {table}.error IS NULL) AS {stage.name}_known")
        columns += [f"CASE {' '.join(cases)} ELSE 0 END AS code", f"CASE code {' '.join(errors)} END AS error"]
        return f"SELECT {', '.join(columns)} FROM (SELECT * FROM listing WHERE {within}) l {' '.join(joins)}"


def is_number(type_: pa.DataType) -> bool:
    """Whether a column of this type has a place among the `facts`."""
    return pa.types.is_integer(type_) or pa.types.is_floating(type_)
