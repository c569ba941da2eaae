"""All that is known of one clip: `python -m curation.show OUT CLIP_ID`. Prints it, and writes a strip of its frames.

The strip has the frames through the crop and, below, the optical flow from each to the next in colours: hue is the
direction, white no motion. The run stores lengths of flow only, so the flow is computed again, by DIS whatever engine
measured M. CLIP_ID may be its beginning, or the clip's path.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from curation.config import Config
from curation.decide import load_decided
from curation.errors import ConfigError, Stopped, shown
from curation.names import ENGINES, SUMMARY
from curation.run import stopped
from manifests.schema import DECIDED, FIELDS, INDEXED
from manifests.storage import place

SIDE = 192  # of a frame on the strip, px
SHOWN = 8  # frames on it, at most


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m curation.show", description=__doc__.splitlines()[0])
    parser.add_argument("output", help="output folder of a run")
    parser.add_argument("clip", metavar="CLIP_ID", help="the clip's id, its beginning, or its path")
    parser.add_argument("--strip", type=Path, metavar="FILE.png", help="where to write it (default: CLIP_ID.png here)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    try:
        config = load_decided(args.output, [])
        row, verdict = find(config, args.clip)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (Stopped, OSError) as error:
        return stopped(error, config)
    print_clip(config, row, verdict)
    write_strip(config, row, args.strip or Path(f"{row['clip_id']}.png"))
    return 0


def find(config: Config, wanted: str) -> tuple[dict[str, Any], list[str]]:
    """The clip's row of `verdicts`, and its verdict in words under the run's own thresholds. Raises ConfigError."""
    from curation.outputs import decide
    from curation.verdicts import Measurements

    output = place(config.output)
    engines = json.loads((output / ENGINES).read_text(encoding="utf-8"))
    quoted = "'" + wanted.replace("'", "''") + "'"
    with Measurements(output, config, engines, "nothing") as measurements:
        found = measurements.rows(
            f"SELECT clip_id, source || '/' || path FROM facts WHERE starts_with(clip_id, {quoted}) "
            f"OR path = {quoted} OR source || '/' || path = {quoted} ORDER BY ALL LIMIT 5"
        )
        if len(found) != 1:
            what = "no clip" if not found else "several clips"
            named = "".join(f"\n  {clip_id}  {path!r}" for clip_id, path in found)
            raise ConfigError(f"{output}: {what} with the id or path {wanted!r}{named}")
        decide(config, measurements)
        row = measurements.clip_rows("decided", [found[0][0]])[found[0][0]]
        outcome = measurements.outcomes[row["code"]]
    said = [outcome.status + (f" at {outcome.stage}" if outcome.stage else "")]
    if rule := outcome.rule:
        said.append(f"{rule.reason}: {rule.column} {row[rule.column]} {rule.op} {rule.limit(config.thresholds):g}")
    return row, said


def print_clip(config: Config, row: Mapping[str, Any], verdict: list[str]) -> None:
    """Everything, stage by stage."""
    from curation.store import clip_of

    output = place(config.output)
    engines = json.loads((output / ENGINES).read_text(encoding="utf-8"))
    roots = {source.name: source.root for source in config.sources}
    clip = clip_of(dict(row))
    print(f"clip      {row['clip_id']}\nsource    {row['source']}\nfile      {clip.location(roots[clip.source])!r}")
    print(f"kind      {row['kind']}\nstamp     {row['stamp']}")
    if clip.span:
        print(f"span      {clip.span[0]:g} to {clip.span[1]:g} s")
    print(f"verdict   {shown('; '.join(verdict))}")
    if row["problem"]:
        print(f"problem   {shown(row['problem'])}")
    _print_section("index of the source", {name: row[name] for name in INDEXED if row[name] is not None})
    for stage, chosen in config.stage_table():
        described = engines[stage.name]
        print(f"\n{stage.name}: {chosen.engine}, fingerprint {described['fingerprint']}")
        if row[f"{stage.name}_error"]:
            print(f"  failed: {shown(row[f'{stage.name}_error'])}")
        elif not row[f"{stage.name}_known"]:
            print("  not measured")
            continue
        if row[f"{stage.name}_known"]:
            _print_values({field.name: row[field.name] for field in stage.fields})
    _print_section("decided", _decided(config, row["clip_id"]))
    print()
    if row["flow_path"]:
        path = output / row["flow_path"]
        print(f"flow: {path}{'' if path.is_file() else ' (missing)'}")


def _decided(config: Config, clip_id: str) -> dict[str, Any]:
    """What the last decision wrote of the clip beside its measurements and verdict; nothing before the first one."""
    if not (place(config.output) / SUMMARY).is_file():
        return {}
    from curation.browsing import Clips

    written = Clips(config).row(clip_id) or {}
    return {name: value for name in (*DECIDED, "duplicate_of") if (value := written.get(name)) is not None}


def _print_section(title: str, values: Mapping[str, Any]) -> None:
    if values:
        print(f"\n{title}")
        _print_values(values)


def _print_values(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        unit = "" if value is None else (FIELDS[name].metadata or {}).get(b"unit", b"").decode()
        print(f"  {name:<17} {value_text(value)} {unit}".rstrip())


def value_text(value: Any) -> str:
    """A value on one line: numbers short, long lists by their length and beginning."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        items = ", ".join(value_text(item) for item in value[:4])
        return f"[{items}{f', ... {len(value)} in all' if len(value) > 4 else ''}]"
    return "-" if value is None else shown(str(value))


def write_strip(config: Config, row: Mapping[str, Any], path: Path) -> None:
    """The frames of the grid, and below each the flow to the next. Says so where the clip cannot be decoded."""
    from PIL import Image

    from curation.pictures import Pictures, crop_of, grid_flow, side_by_side, spread
    from flows.colours import flow_colours
    from stages.base import ClipError

    with Pictures(config) as pictures:
        try:
            frames = pictures.frames(row, config.frames.size)
        except (ClipError, OSError) as error:
            print(f"no strip: the clip cannot be decoded now: {shown(str(error))}")
            return
    grid = frames.through(crop_of(row, frames))
    chosen = spread(len(grid) - 1, SHOWN)
    strip = _shrink(side_by_side(grid[i] for i in chosen), len(chosen))
    said = f"strip: {path}: frames {', '.join(map(str, chosen))} of {len(grid)}"
    if row["kind"] == "video":
        flow, full = grid_flow(grid)
        colours = _shrink(side_by_side(flow_colours(flow[i], full) for i in chosen), len(chosen))
        strip = np.concatenate([strip, colours])
        said += f", below each the flow to the next; full colour is {full:.1f} px of the {config.frames.size} px grid"
    Image.fromarray(strip).save(path)
    print(said)


def _shrink(picture: np.ndarray, count: int) -> np.ndarray:
    import cv2

    return cv2.resize(picture, (count * SIDE, SIDE), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    sys.exit(main())
