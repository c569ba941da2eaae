"""What a person reads at the end of a run: the funnel, the reasons, the failures, and what to open next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from curation.config import Config
from curation.errors import shown
from curation.names import CONFIG, ENGINES, REPORT
from curation.outputs import write_json
from manifests.shards import whole
from manifests.storage import Place


def save_config(output: Place, config: Config, engines: Mapping[str, Any]) -> None:
    """The complete configuration of the run as a sources.yaml, and beside it, among the measurements, the engines that
    they are by, so that deciding again needs neither their libraries nor their weights."""
    write_json(output / ENGINES, engines)
    raw = config.model_dump(mode="python")
    raw["stages"] = {c["stage"]: {"engine": c["engine"], **c["params"]} for c in raw["stages"]}
    raw["sources"] = list(raw["sources"])
    with whole(output / CONFIG) as temporary:
        temporary.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")


def print_summary(summary: dict[str, Any], output: Place) -> None:
    """The funnel and the totals, on standard output."""
    print(f"\n{'stage':<10}{'in':>9}{'out':>9}  measured  reused  seconds  rejected or failed here")
    for step in summary["funnel"]:
        stage = summary["stages"].get(step["stage"], {})
        reasons = [f"{reason} {count:,}" for reason, count in step["rejected"].items()]
        reasons += [f"{what} {step[what]:,}" for what in ("failed", "to_measure") if step[what]]
        print(
            f"{step['stage']:<10}{step['in']:>9,}{step['out']:>9,}{stage.get('measured', 0):>10,}"
            f"{stage.get('reused', 0):>8,}{stage.get('seconds', 0.0):>9.1f}  {', '.join(reasons)}"
        )
    parts = [f"{summary[name]:,} {name}" for name in ("kept", "rejected", "failed")]
    if summary["to_measure"]:
        parts.append(f"{summary['to_measure']:,} to_measure")
    print(f"\n{summary['inputs']:,} clips = {' + '.join(parts)}")
    for name, mix in summary["mix"].items():
        short = f", {mix['asked'] - mix['kept']:,} short" if mix["kept"] < mix["asked"] else ""
        print(f"  mix {name}: {mix['kept']:,} of {mix['asked']:,} asked{short}")
    for error in summary["errors"][:10]:
        print(f"  failed at {error['stage']}: {error['source']}/{error['path']!r}: {shown(error['error'])}")
    if len(summary["errors"]) > 10:
        print(f"  ... and more: see {output / 'rejected'}")
    if summary.get("ignored_files"):
        names = ", ".join(f".{shown(ext)} {count:,}" for ext, count in summary["ignored_files"].items())
        print(f"not videos or images by their extension: {names}")
    print(f"report: {output / REPORT}   manifest: {output / 'manifests'}   reasons: {output / 'rejected'}")
