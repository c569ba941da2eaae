"""What other thresholds would do, from the measurements alone: nothing is written but the plot that is asked for.

python -m curation.decide OUT --what-if --set thresholds.min_quality=0.6
python -m curation.decide OUT --sweep thresholds.min_quality=0.1:0.9:0.1
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.config import Config
from curation.errors import ConfigError
from curation.names import ENGINES
from curation.outputs import Decision, decide
from curation.verdicts import Measurements
from manifests.storage import place

LISTED = 20  # clips named one by one
POINTS = 200  # of a sweep, at most
WIDTH = 40  # of bars in the terminal, characters


@dataclass(frozen=True)
class Sweep:
    """A threshold and the values to try."""

    key: str
    values: list[float]


@contextmanager
def _decided(config: Config) -> Iterator[tuple[Measurements, Decision]]:
    """Counts of a configuration, and the measurements with a view `judged`: clip_id, file, verdict in words."""
    output = place(config.output)
    engines = json.loads((output / ENGINES).read_text(encoding="utf-8"))
    with Measurements(output, config, engines, "nothing") as measurements:
        decision = decide(config, measurements)
        words = [
            f"rejected: {outcome.rule.reason}" if outcome.rule else outcome.status for outcome in measurements.outcomes
        ]
        measurements.add("words", pa.table({"code": range(len(words)), "verdict": words}))
        measurements.rows(
            "CREATE VIEW judged AS SELECT clip_id, source || '/' || path AS file, verdict "
            "FROM decided JOIN words USING (code)"
        )
        yield measurements, decision


def print_what_if(before: Config, after: Config) -> None:
    """Which clips would change side, and what becomes of the counts and of the histogram of M."""
    with _decided(before) as (measurements, old):
        judged = pa.Table.from_batches(
            measurements.batches("SELECT clip_id, verdict AS was FROM judged", 100_000),
            pa.schema([("clip_id", pa.string()), ("was", pa.string())]),
        )
    with _decided(after) as (measurements, new):
        measurements.add("earlier", judged)
        measurements.make(
            "moved", "SELECT file, was, verdict FROM judged JOIN earlier USING (clip_id) WHERE was <> verdict"
        )
        moves = measurements.rows("SELECT was, verdict, count(*) FROM moved GROUP BY ALL ORDER BY ALL")
        moved = measurements.rows(f"SELECT * FROM moved ORDER BY ALL LIMIT {LISTED}")
    count = sum(clips for _, _, clips in moves)
    print(f"{'':<12}{'as run':>10}{'what if':>10}")
    for name in ("kept", "rejected", "failed", "to_measure"):
        print(f"{name:<12}{old.status.get(name, 0):>10,}{new.status.get(name, 0):>10,}")
    print(f"\n{count:,} of {new.clips:,} clips would change:")
    for was, becomes, clips in moves:
        print(f"  {clips:>9,}  {was} -> {becomes}")
    for file, was, becomes in moved:
        print(f"  {file!r}: {was} -> {becomes}")
    if count > LISTED:
        print(f"  ... and {count - LISTED:,} more")
    _print_histograms(before, old.histogram, after, new.histogram)
    if new.status.get("to_measure"):
        print(
            "\nto_measure: let through, but later stages were never measured; curation.run with the same --set does it"
        )
    print("nothing was written; without --what-if, curation.decide writes it")


def _print_histograms(before: Config, old: list[int], after: Config, new: list[int]) -> None:
    if (before.resample.bins, before.resample.max_intensity, before.resample.by) != (
        after.resample.bins,
        after.resample.max_intensity,
        after.resample.by,
    ):
        print("\nthe bins of M differ, so their counts do not compare")
        return
    step = after.resample.max_intensity / after.resample.bins
    most = max([*old, *new, 1])
    print(f"\nkept clips by {after.resample.by}{'':<6}{'as run':>10}{'what if':>10}")
    for index, (was, becomes) in enumerate(zip(old, new, strict=True)):
        bar = "#" * round(WIDTH * becomes / most)
        end = " and more" if index == len(new) - 1 else f" to {(index + 1) * step:g}"
        print(f"  {index * step:g}{end:<14}{was:>18,}{becomes:>10,}  {bar}")


def parse_sweep(text: str) -> Sweep:
    """`thresholds.min_quality=0.1:0.9:0.1`: from, to and step, both ends among the values. Raises ConfigError."""
    key, _, numbers = text.partition("=")
    expected = "expected thresholds.KEY=FROM:TO:STEP, such as thresholds.min_quality=0.1:0.9:0.1"
    try:
        low, high, step = (float(part) for part in numbers.split(":"))
    except ValueError:
        raise ConfigError(f"--sweep {text}: {expected}") from None
    if not key.startswith("thresholds.") or not step > 0 or not high >= low or not high - low < step * POINTS:
        raise ConfigError(f"--sweep {text}: {expected}, FROM not above TO and at most {POINTS} values")
    count = int((high - low) / step + 1e-9) + 1
    return Sweep(key, [float(f"{low + i * step:.12g}") for i in range(count)])


def print_sweep(sweep: Sweep, configs: list[Config], plot: Path | None) -> None:
    """The yield over the values of one threshold, in the terminal and, with `plot`, as an SVG file."""
    counts: list[dict[str, Any]] = []
    print(f"{sweep.key:>28}{'kept':>10}{'to_measure':>12}{'rejected':>10}{'failed':>9}")
    for value, config in zip(sweep.values, configs, strict=True):
        with _decided(config) as (_, decision):
            pass
        status = {name: decision.status.get(name, 0) for name in ("kept", "to_measure", "rejected", "failed")}
        counts.append(status)
        bar = "#" * round(WIDTH * status["kept"] / max(decision.clips, 1))
        bar += "." * round(WIDTH * status["to_measure"] / max(decision.clips, 1))
        print(
            f"{value:>28g}{status['kept']:>10,}{status['to_measure']:>12,}{status['rejected']:>10,}"
            f"{status['failed']:>9,}  {bar}"
        )
    print("\n# kept, . to_measure: let through, but later stages were never measured. Nothing was written")
    if plot is not None:
        from curation.yield_curve import yield_curve

        plot.write_text(yield_curve(sweep.key, sweep.values, counts), encoding="utf-8")
        print(f"curve: {plot}")
