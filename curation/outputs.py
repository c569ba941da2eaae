"""One pass from measurements to manifests: verdicts, resampling, and everything the output folder shows.

The same measurements, thresholds and configuration give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curation.config import DUPLICATE, Config
from curation.duplicates import duplicates
from curation.identity import find_identities
from curation.resample import Weights, bin_weights
from curation.split import VIDEO, split_videos
from curation.verdicts import OVER_MIX, Measurements, Outcome
from manifests.schema import DECIDED, INDEXED, LISTED, SCHEMA_VERSION, VERDICT, manifest_schema, rejected_schema
from manifests.shards import whole, write_shards
from manifests.storage import Place, place


@dataclass(frozen=True)
class Decision:
    """What became of the clips: counts, and the histogram of motion over the kept ones."""

    clips: int
    status: dict[str, int]
    reasons: dict[str, int]
    by_source: dict[str, dict[str, int]]
    mix: dict[str, dict[str, int]]
    funnel: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    histogram: list[int]
    unbinned: int
    weights: Weights

    def as_json(self) -> dict[str, Any]:
        """The part of summary.json that depends on nothing but measurements and configuration."""
        drawn = np.array(self.histogram) * self.weights.bins
        return {
            "inputs": self.clips,
            **{name: self.status.get(name, 0) for name in ("kept", "rejected", "failed", "to_measure")},
            "reasons": self.reasons,
            "by_source": self.by_source,
            "mix": self.mix,
            "funnel": self.funnel,
            "errors": self.errors,
            "motion_histogram": {
                "clips_per_bin": self.histogram,
                "expected_draws_per_bin": [round(float(x), 6) for x in drawn],
                "unbinned": self.unbinned,
                "expected_draws_of_unbinned": round(self.unbinned * self.weights.image, 6),
            },
        }


def write_outputs(config: Config, engines: Mapping[str, Any], measurements: Measurements) -> Decision:
    """Decide every clip and write `manifests/` and `rejected/`."""
    output = place(config.output)
    decision = decide(config, measurements)
    find_identities(measurements)
    split_videos(measurements, config.split.val_fraction)
    measurements.make(
        "places",
        f"SELECT clip_id, i.identity, s.split FROM decided LEFT JOIN identities i USING (clip_id) "
        f"JOIN splits s ON s.video = {VIDEO}",
    )
    measurements.rows("CREATE OR REPLACE VIEW placed AS SELECT * FROM decided JOIN places USING (clip_id)")
    described = _metadata(config, engines)
    by_code = measurements.outcomes
    kept = [code for code, outcome in enumerate(by_code) if outcome.status == "kept"]
    columns = _columns(config, measurements, decision.weights)
    for folder, schema, where in (
        ("manifests", manifest_schema(), f"code IN ({_list(kept)})"),
        ("rejected", rejected_schema(), f"code NOT IN ({_list(kept)})"),
    ):
        selected = ", ".join(f"{columns[name]} AS {name}" for name in schema.names)
        rows = measurements.whole("placed", where, selected)
        write_shards(output / folder, _cast(rows, schema), schema, described)
    return decision


def decide(config: Config, measurements: Measurements) -> Decision:
    """Reject duplicates and what is over the mix, count the verdicts and weigh the bins; writes nothing."""
    measurements.settle()
    measurements.reject_duplicates(duplicates(measurements, DUPLICATE.limit(config.thresholds)))
    measurements.reject_over_mix(config.mix)
    by_code = measurements.outcomes
    counts: dict[int, int] = {}
    by_source: dict[str, dict[str, int]] = {}
    for source, code, count in measurements.rows(
        "SELECT source, code, count(*) FROM decided GROUP BY ALL ORDER BY ALL"
    ):
        counts[code] = counts.get(code, 0) + count
        of_source = by_source.setdefault(source, {"kept": 0, "rejected": 0, "failed": 0, "to_measure": 0})
        of_source[by_code[code].status] += count
    status: dict[str, int] = {}
    reasons: dict[str, int] = {}
    for code, count in counts.items():
        status[by_code[code].status] = status.get(by_code[code].status, 0) + count
        if (rule := by_code[code].rule) is not None:
            reasons[rule.reason] = reasons.get(rule.reason, 0) + count
    clips = sum(counts.values())
    assert clips == sum(status.values())
    histogram = np.zeros(config.resample.bins, dtype=np.int64)
    binned = f"FROM decided WHERE code = 0 AND {_binned_sql(config)}"
    for bin_, count in measurements.rows(f"SELECT {_bin_sql(config)} AS bin, count(*) {binned} GROUP BY bin"):
        histogram[bin_] = count
    unbinned = measurements.rows(f"SELECT count(*) FROM decided WHERE code = 0 AND NOT {_binned_sql(config)}")[0][0]
    return Decision(
        clips=clips,
        status=status,
        reasons=reasons,
        by_source=by_source,
        mix={
            name: {"asked": asked, "kept": by_source.get(name, {}).get("kept", 0)} for name, asked in config.mix.items()
        },
        funnel=_funnel(by_code, counts, clips, bool(config.mix)),
        errors=_errors(measurements),
        histogram=[int(x) for x in histogram],
        unbinned=unbinned,
        weights=bin_weights(histogram, unbinned, config.resample),
    )


def _funnel(by_code: list[Outcome], counts: dict[int, int], clips: int, mixed: bool) -> list[dict[str, Any]]:
    """Per stage: clips that came in, were rejected by each rule, failed, and went on."""
    steps: list[dict[str, Any]] = []
    left = clips
    stages = list(dict.fromkeys(o.stage for o in by_code if o.stage and (mixed or o is not OVER_MIX)))
    for stage in stages:
        step: dict[str, Any] = {"stage": stage, "in": left, "rejected": {}, "failed": 0, "to_measure": 0}
        for code, outcome in enumerate(by_code):
            count = counts.get(code, 0)
            if outcome.stage != stage or not count:
                continue
            left -= count
            if outcome.rule is None:
                step[outcome.status] += count
            else:
                step["rejected"][outcome.rule.reason] = step["rejected"].get(outcome.rule.reason, 0) + count
        step["out"] = left
        steps.append(step)
    return steps


def _errors(measurements: Measurements, most: int = 1000) -> list[dict[str, Any]]:
    """The failed clips by source and path, at most `most`; all of them stand in rejected/."""
    failed = [code for code, outcome in enumerate(measurements.outcomes) if outcome.status == "failed"]
    rows = measurements.rows(
        f"SELECT clip_id, source, path, {_stage_sql(measurements)}, error FROM decided "
        f"WHERE code IN ({_list(failed)}) ORDER BY source, path LIMIT {most}"
    )
    return [dict(zip(("clip_id", "source", "path", "stage", "error"), row, strict=True)) for row in rows]


def _columns(config: Config, measurements: Measurements, weights: Weights) -> dict[str, str]:
    """The SQL expression behind each column. Columns of stages after the one that decided are null."""
    by_code = measurements.outcomes
    sql = {name: name for name in ("clip_id", "source", "path", "kind", *LISTED, *INDEXED)}
    for position, stage in enumerate(measurements.stages):
        later = [*(s.name for s in measurements.stages[position:]), "mix", "duplicates"]
        seen = [c for c, o in enumerate(by_code) if o.stage is None or o.stage in later]
        for field in stage.fields:
            sql[field.name] = f"CASE WHEN code IN ({_list(seen)}) THEN {field.name} END"
    kept_bin = f"CASE WHEN code = 0 AND {_binned_sql(config)} THEN {_bin_sql(config)} END"
    bins = " ".join(f"WHEN {index} THEN {float(weight)!r}" for index, weight in enumerate(weights.bins))
    cap = config.resample.max_intensity
    sql |= {
        # least() alone passes over nulls
        "motion_intensity_capped": "CASE WHEN code = 0 AND motion_intensity IS NOT NULL "
        f"THEN least(motion_intensity, {cap!r}) END",
        "motion_bin": kept_bin,
        "sample_weight": f"CASE WHEN code = 0 AND NOT {_binned_sql(config)} THEN {float(weights.image)!r} "
        f"WHEN code = 0 THEN CAST(CASE ({kept_bin}) {bins} END AS DOUBLE) END",
        **{name: name for name in ("identity", "split", "duplicate_of", "error")},
        "status": _case({c: f"'{o.status}'" for c, o in enumerate(by_code)}),
        "stage": _stage_sql(measurements),
        "reason": _case({c: f"'{o.rule.reason}'" for c, o in enumerate(by_code) if o.rule}),
        "value": _case({c: f"CAST({o.rule.column} AS DOUBLE)" for c, o in enumerate(by_code) if o.rule}),
        "threshold": _case(
            {
                c: "CAST(mix_limit AS DOUBLE)"
                if o is OVER_MIX
                else f"CAST('{float(o.rule.limit(config.thresholds))!r}' AS DOUBLE)"
                for c, o in enumerate(by_code)
                if o.rule
            }
        ),
    }
    for name in rejected_schema().names:
        sql.setdefault(name, "NULL")
    assert set(DECIDED) | set(VERDICT) <= set(sql)
    return sql


def _binned_sql(config: Config) -> str:
    """Whether a clip has a bin: stills have none, nor have clips whose motion could not be told."""
    return f"(kind = 'video' AND {config.resample.by} IS NOT NULL)"


def _bin_sql(config: Config) -> str:
    width = config.resample.max_intensity / config.resample.bins
    return f"CAST(least(floor({config.resample.by} / {width!r}), {config.resample.bins - 1}) AS INTEGER)"


def _stage_sql(measurements: Measurements) -> str:
    return _case({c: f"'{o.stage}'" for c, o in enumerate(measurements.outcomes) if o.stage})


def _case(by_code: Mapping[int, str]) -> str:
    return "CASE code " + " ".join(f"WHEN {code} THEN {sql}" for code, sql in by_code.items()) + " END"


def _list(codes: list[int]) -> str:
    return ", ".join(map(str, codes))


def _cast(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield from pa.Table.from_batches([batch]).cast(schema).to_batches()


def _metadata(config: Config, engines: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "roots": {source.name: source.root for source in config.sources},
        "profile": config.profile,
        "engines": engines,
        "thresholds": config.limits(),
        "frames": config.frames.model_dump(),
        "resample": config.resample.model_dump(),
        "split": config.split.model_dump(),
        "mix": config.mix,
    }


def write_json(path: Place, content: Mapping[str, Any]) -> None:
    """JSON for people, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )
