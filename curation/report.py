"""`OUT/report.html`: what became of the clips, on one page that needs no network.

Written by every run and every decision. It says how long things took, so it alone is not the same byte for byte from
run to run. The clips it shows are decoded again, for at most SECONDS; one that cannot be decoded any more says so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from curation.config import Config
from curation.histograms import Histogram, histograms
from curation.names import REPORT
from curation.pictures import Pictures, contact_strip, data_uri, evidence
from curation.verdicts import Measurements, Outcome
from manifests.shards import whole
from manifests.storage import Place
from stages.base import ClipError, Rule

KEPT_SHOWN = 12  # across the range of M, and of these
STILLS_SHOWN = 3  # stills at most, which have no M to spread over
REJECTED_SHOWN = 4  # per reason, from the nearest to the threshold to the farthest
FAILED_SHOWN = 200
SOURCES_SHOWN = 50
SECONDS = 30.0
STRIP_PX, FRAME_PX = 128, 192


@dataclass(frozen=True)
class Example:
    """A clip to show. picture: a data URI, or None where `problem` says why there is none. value: what was judged."""

    row: Mapping[str, Any]
    picture: str | None
    problem: str | None
    value: float | None


def write_report(output: Place, config: Config, measurements: Measurements, summary: Mapping[str, Any]) -> None:
    """Write the page. summary: as it is written to summary.json."""
    page = render(config, measurements, summary)
    with whole(output / REPORT) as temporary:
        temporary.write_text(page, encoding="utf-8")


def render(config: Config, measurements: Measurements, summary: Mapping[str, Any]) -> str:
    """The page's HTML. What clips, files and models say stands in it as text."""
    from jinja2 import Environment, StrictUndefined

    width = config.resample.max_intensity / config.resample.bins
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"short": short, "share": share}
    environment.tests["finite"] = math.isfinite  # the limit of a mix is each source's own
    groups: list[tuple[Outcome, int, list[dict[str, Any]]]] = [
        (measurements.outcomes[0], summary["kept"], _kept(measurements)),
        *_rejected(measurements),
    ]
    pictures = _pictures(config, groups)
    shown = [
        (
            outcome,
            count,
            [
                Example(row, *pictures[row["clip_id"]], row[outcome.rule.column] if outcome.rule else None)
                for row in rows
            ],
        )
        for outcome, count, rows in groups
    ]
    return environment.from_string(files("curation").joinpath("report.html.j2").read_text("utf-8")).render(
        config=config,
        summary=summary,
        statuses=[
            name for name in ("kept", "rejected", "failed", "to_measure") if summary[name] or name != "to_measure"
        ],
        sources=_by_source(measurements),
        histograms=histograms(measurements, config.thresholds),
        kept=shown[0][2],
        kept_order=_order({example.row["kind"] for example in shown[0][2]}),
        rejected=shown[1:],
        errors=summary["errors"][:FAILED_SHOWN],
        sources_shown=SOURCES_SHOWN,
        bin_width=width,
        scaled=lambda h: [[count / max(h.highest, 1) for count in bar] for bar in h.bars],
        columns=lambda values, most: [[value / most] for value in values],
        said=_bars_said,
        bins=lambda values: [
            f"M {short(i * width)} {f'to {short((i + 1) * width)}' if i + 1 < len(values) else 'and more'}: {short(v)}"
            for i, v in enumerate(values)
        ],
        limit=lambda outcome: outcome.rule.limit(config.thresholds),
    )


def short(value: float | None) -> str:
    """A number as people read it: 1,234 or 0.0312, never 1e-05 or 0.30000001."""
    if value is None:
        return "-"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    text = f"{value:,.4g}"
    return f"{value:,.0f}" if "e+" in text else f"{value:.8f}".rstrip("0") if "e-" in text else text


def share(part: float, whole: float) -> str:
    """A share in percent: 0 and 100 only where they are exact."""
    if not whole or part in (0, whole):
        return "100 %" if part else "0 %"
    percent = 100 * part / whole
    return f"{percent:.1f} %" if 0.05 <= percent < 99.95 else "under 0.1 %" if percent < 1 else "over 99.9 %"


def _kept(measurements: Measurements) -> list[dict[str, Any]]:
    """Kept videos across the range of M, and after them a few stills."""
    stills = _ranked(measurements, 0, "clip_id", STILLS_SHOWN, "kind = 'image'")
    return _ranked(measurements, 0, "motion_intensity", KEPT_SHOWN - len(stills), "kind = 'video'") + stills


def _order(kinds: set[str]) -> str:
    videos = "from the least motion to the most"
    return "stills" if kinds == {"image"} else f"{videos}, then stills" if "image" in kinds else videos


def _bars_said(h: Histogram) -> list[str]:
    """Per bar what it counts: shown where the pointer rests."""
    found = []
    for i, (kept, rejected, other) in enumerate(h.bars):
        low, high = short(h.edges[i]), short(h.edges[i + 1])
        more = h.above and i + 1 == len(h.bars)
        where = f"{low} and more" if more else low if h.whole else f"{low} to {high}"
        found.append(f"{where}: {short(kept)} kept, {short(rejected)} rejected, {short(other)} lost for another reason")
    return found


def _rejected(measurements: Measurements) -> list[tuple[Outcome, int, list[dict[str, Any]]]]:
    """Per rule that rejected: how many clips, and a few of them."""
    counts = dict(measurements.rows("SELECT code, count(*) FROM decided GROUP BY code"))
    found = []
    for code, outcome in enumerate(measurements.outcomes):
        if outcome.rule is None or not counts.get(code):
            continue
        order = f"{outcome.rule.column} {'DESC' if outcome.rule.op == '<' else 'ASC'}"
        found.append((outcome, counts[code], _ranked(measurements, code, order, REJECTED_SHOWN)))
    return found


def _ranked(measurements: Measurements, code: int, order: str, shown: int, where: str = "true") -> list[dict[str, Any]]:
    """`shown` clips at even ranks of an order, as rows of `decided`."""
    chosen = measurements.rows(
        f"WITH ranked AS (SELECT clip_id, row_number() OVER (ORDER BY {order} NULLS FIRST, clip_id) - 1 AS place, "
        f"count(*) OVER () AS clips FROM decided WHERE code = {code} AND {where}), "
        f"spots AS (SELECT DISTINCT CAST(round(i * (clips - 1) / {shown - 1}) AS BIGINT) AS place "
        f"FROM range({shown}) t(i), (SELECT any_value(clips) AS clips FROM ranked)) "
        "SELECT clip_id FROM ranked JOIN spots USING (place) ORDER BY place"
    )
    ids = [clip_id for (clip_id,) in chosen]
    rows = measurements.clip_rows("decided", ids)
    return [rows[clip_id] for clip_id in ids]


def _pictures(
    config: Config, groups: list[tuple[Outcome, int, list[dict[str, Any]]]]
) -> dict[str, tuple[str | None, str | None]]:
    """Per clip_id a data URI, or why there is none. The first of each group first, for time may run out."""
    until = time.monotonic() + SECONDS
    found: dict[str, tuple[str | None, str | None]] = {}
    with Pictures(config) as pictures:
        for place in range(max(len(rows) for _, _, rows in groups)):
            for outcome, _, rows in groups:
                if place < len(rows):
                    late = time.monotonic() > until
                    said = f"not decoded: the report takes no more than {SECONDS:g} s for pictures"
                    row = rows[place]
                    found[row["clip_id"]] = (None, said) if late else _picture(pictures, row, outcome.rule)
    return found


def _picture(pictures: Pictures, row: dict[str, Any], rule: Rule | None) -> tuple[str | None, str | None]:
    try:
        frames = pictures.frames(row, FRAME_PX if rule and rule.frame else STRIP_PX)
    except (ClipError, OSError) as error:
        return None, f"cannot be decoded now: {error}"
    index = row[rule.frame] if rule and rule.frame else None
    return data_uri(evidence(row, frames, index) if rule else contact_strip(row, frames)), None


def _by_source(measurements: Measurements) -> dict[str, dict[str, int]]:
    """Per source, clips per status and, of those rejected, per reason."""
    found: dict[str, dict[str, int]] = {}
    for source, code, count in measurements.rows(
        "SELECT source, code, count(*) FROM decided GROUP BY ALL ORDER BY ALL"
    ):
        outcome = measurements.outcomes[code]
        counts = found.setdefault(source, {})
        for name in (outcome.status, outcome.rule and f"rejected: {outcome.rule.reason}", "clips"):
            if name:
                counts[name] = counts.get(name, 0) + count
    return found
