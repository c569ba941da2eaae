"""Histograms of everything that was measured, with the thresholds that judge it: for the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from curation.config import DUPLICATE
from curation.verdicts import Measurements, is_number
from stages.base import Rule

BARS = 24
COPIES = pa.field(
    DUPLICATE.column, pa.float64(), metadata={"meaning": "share of equal bits of a copy and the clip that stays for it"}
)


@dataclass(frozen=True)
class Limit:
    """A threshold on a column: clips whose value is `op` than `value` are rejected for `reason`."""

    reason: str
    op: str
    name: str | None
    value: float


@dataclass(frozen=True)
class Histogram:
    """Counts of one column over the clips that its stage measured.

    edges: len(bars) + 1 of them, evenly spaced, one at the first threshold; what lies above the last edge is counted in
    the last bar. whole: each bar is one whole number, that of its left edge.
    bars: clips per bar as (kept, rejected by a rule on this column, lost elsewhere). empty: clips without a value.
    """

    stage: str
    column: str
    meaning: str
    unit: str
    edges: list[float]
    bars: list[tuple[int, int, int]]
    whole: bool
    above: bool
    empty: int
    limits: list[Limit] = field(default_factory=list)

    @property
    def highest(self) -> int:
        """Clips in the fullest bar."""
        return max(map(sum, self.bars), default=0)

    def place(self, limit: Limit) -> float:
        """Where a threshold lies on the axis, 0..1: between the bars that it parts."""
        low, high = self.edges[0], self.edges[-1]
        value = limit.value + 1 if self.whole and limit.op == ">" else limit.value
        return min(max((value - low) / (high - low), 0.0), 1.0)


def histograms(measurements: Measurements, thresholds: Mapping[str, float]) -> list[Histogram]:
    """One per numeric column of the stages, and the likeness of the copies, that has a value anywhere, those with
    thresholds first."""
    columns = [(s.name, f, s.rules) for s in measurements.stages for f in s.fields if is_number(f.type)]
    columns.append(("duplicates", COPIES, (DUPLICATE,)))
    names = ", ".join(f.name for _, f, _ in columns)
    known = ", ".join(f"{stage.name}_known" for stage in measurements.stages)
    known += f", {COPIES.name} IS NOT NULL AS duplicates_known"
    # one join, whatever the number of columns
    measurements.rows(f"CREATE OR REPLACE TEMP TABLE numbers AS SELECT code, {known}, {names} FROM decided")
    found = [_histogram(measurements, thresholds, *column) for column in columns]
    measurements.rows("DROP TABLE numbers")
    return sorted((h for h in found if h is not None), key=lambda h: not h.limits)


def _histogram(
    measurements: Measurements,
    thresholds: Mapping[str, float],
    stage: str,
    column: pa.Field,
    rules_of_stage: tuple[Rule, ...],
) -> Histogram | None:
    name = column.name
    count, clips, low, high, usual = measurements.rows(
        f"SELECT count({name}), count(*), min({name}), max({name}), quantile_disc({name}, 0.99) "
        f"FROM numbers WHERE {stage}_known"
    )[0]
    if not count:
        return None
    rules = [rule for rule in rules_of_stage if rule.column == name]
    limits = [
        Limit(rule.reason, rule.op, rule.threshold if isinstance(rule.threshold, str) else None, limit)
        for rule in rules
        if math.isfinite(limit := float(rule.limit(thresholds)))
    ]
    marks = [limit.value for limit in limits]
    low, far = min([low, *marks]), max([high if high <= 1.5 * usual else usual, *marks])
    integers = pa.types.is_integer(column.type)
    whole = integers and far - low < BARS
    if whole:
        edges = [float(x) for x in range(math.floor(low), math.ceil(far) + 2)]
    else:
        edges = _edges(low, far, marks[0] if marks else 0.0, integers)
    by_code = measurements.outcomes
    mine = [code for code, outcome in enumerate(by_code) if outcome.rule in rules and outcome.stage == stage]
    step = edges[1] - edges[0]
    bars = [[0, 0, 0] for _ in edges[1:]]
    for bar, kind, number in measurements.rows(
        f"SELECT CAST(greatest(0, least(floor(({name} - {edges[0]!r}) / {step!r} + 1e-9), {len(bars) - 1})) AS INTEGER)"
        f", CASE WHEN code = 0 THEN 0 WHEN code IN ({', '.join(map(str, [*mine, -1]))}) THEN 1 ELSE 2 END, count(*)"
        f" FROM numbers WHERE {stage}_known AND {name} IS NOT NULL GROUP BY ALL"
    ):
        bars[bar][kind] += number
    described = {key.decode(): value.decode() for key, value in (column.metadata or {}).items()}
    return Histogram(
        stage=stage,
        column=name,
        meaning=described.get("meaning", ""),
        unit=described.get("unit", ""),
        edges=edges,
        bars=[(kept, mine, other) for kept, mine, other in bars],
        whole=whole,
        above=high > edges[-1],
        empty=clips - count,
        limits=limits,
    )


def _edges(low: float, high: float, origin: float, integers: bool) -> list[float]:
    """About BARS evenly spaced edges that hold low..high, a round step apart, one of them at `origin`."""
    if not high > low:
        low, high = low - 0.5, low + 0.5
    rough = (high - low) / BARS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    if integers:
        step = max(1.0, math.ceil(step))
    first = math.floor((low - origin) / step + 1e-9)
    last = max(math.ceil((high - origin) / step - 1e-9), first + 1)
    return [float(f"{origin + i * step:.12g}") for i in range(first, last + 1)]
