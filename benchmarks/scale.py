"""What a run of many clips costs beside measuring: listing, resuming, deciding and writing, over made measurements.

    python -m benchmarks.scale [--most 1000000] [--people N] [--keep]

For each size (1e3, 1e4, ...) an output folder is made as a run would have left it: a listing and one row a clip and
stage, a tenth of the clips copies of others. With --people every clip has a face embedding (512 numbers), of one of so
many people, its motion (15 times 10), and two image embeddings (768), as the paper's engines give; those figures are
kept apart. Each step runs
in a process of its own, whose peak memory is its own. To decide is to write manifests and report. The what-if and the
sweep of nine values are those of the command line. The exponent is the slope of log CPU seconds over log clips, from
1e4 on: 1 is linear.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import keep

SWEEP = "thresholds.min_quality=0.1:0.9:0.1"
STEPS = ("list", "resume", "decide", "what_if", "sweep")
ASKED = {"what_if": ["--what-if", "--set", "thresholds.min_quality=0.6"], "sweep": ["--sweep", SWEEP]}


def make(folder: Path, clips: int, people: int) -> None:
    """Empty files to list, in folders of a thousand, and measurements of each: all good but for some to reject."""
    import pyarrow as pa

    from curation.config import Config
    from curation.fingerprint import describe_engines
    from curation.listing import list_clips
    from curation.store import measurement_schema, stage_folder, write_listing
    from curation.summary import save_config
    from manifests.shards import write_table
    from stages.hash import MIRROR
    from tests.curation.made import GOOD, config

    made: Config = config(folder)
    for number in range(clips):
        path = folder / "clips" / f"{number // 1000:05d}" / f"{number:08d}.mp4"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.touch()
    rng = np.random.default_rng(0)
    faces = rng.normal(size=(people, 512)).astype(np.float32)
    engines = describe_engines(made)
    output = Path(made.output)
    listed = list(list_clips(made, None, Counter()))
    write_listing(output, listed)
    save_config(output, made, engines)
    for start in range(0, clips, 50_000):
        part = listed[start : start + 50_000]
        key = {"clip_id": [c.clip_id for c in part], "stamp": [c.stamp for c in part]}
        words = rng.integers(0, 2**64, (len(part), 5), dtype=np.uint64)
        copies = np.arange(0, len(part) - 1, 10)
        words[copies + 1] = words[copies] ^ np.where(copies % 20 == 0, MIRROR, np.uint64(0))[:, None] ^ np.uint64(5)
        drawn = {
            "frame_hash": words.tolist(),
            "quality_score": rng.uniform(0.25, 0.9, len(part)).round(3).tolist(),
            "motion_intensity": [5.0 if i % 10 < 2 else v for i, v in enumerate(rng.gamma(3, 3, len(part)).tolist())],
        }
        if people:
            whose = rng.integers(0, people, len(part))
            whose[copies + 1] = whose[copies]
            noise = rng.normal(size=(len(part), 512)).astype(np.float32)
            drawn["face_embedding"] = unit(faces[whose] + noise * 0.7)  # cosines of about 0.67
            moves = rng.normal(size=(len(part), 15, 10)).astype(np.float32)
            moves[copies + 1] = moves[copies]
            drawn["face_motion"] = lists(lists(pa.array(moves.ravel()), 10), 15)
            pictures = rng.normal(size=(len(part), 768)).astype(np.float32)
            pictures[copies + 1] = pictures[copies]
            drawn["frame_embedding"] = drawn["image_embedding"] = unit(pictures)
        for stage, _ in made.stage_table():
            schema = measurement_schema(stage)
            known = key | drawn
            columns = {
                name: known[name] if name in known else [GOOD[stage.name].get(name)] * len(part)
                for name in schema.names
            }
            target = stage_folder(output, stage.name, engines[stage.name]["fingerprint"])
            write_table(target / f"{start:020d}-made.parquet", pa.table(columns, schema=schema))


def unit(vectors: np.ndarray) -> Any:
    """Rows (n, d) at length 1, as a column of lists."""
    return lists((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).ravel(), vectors.shape[1])


def lists(values: Any, size: int) -> Any:
    """Lists of so many values each."""
    import pyarrow as pa

    return pa.ListArray.from_arrays(np.arange(len(values) // size + 1, dtype=np.int32) * size, values)


def step(name: str, folder: Path) -> dict[str, float]:
    """Run one step in this process: seconds by the clock and of the processor, and the process's peak memory in GiB."""
    from curation import decide
    from curation.fingerprint import describe_engines
    from curation.listing import list_clips
    from curation.outputs import write_outputs
    from curation.report import write_report
    from curation.store import write_listing
    from curation.tasks import count_pending
    from curation.verdicts import Measurements
    from tests.curation.made import config

    made = config(folder)
    output = Path(made.output)
    engines = describe_engines(made)
    started = time.perf_counter()
    figures: dict[str, float] = {}
    if name in ASKED:
        assert decide.main([str(output), *ASKED[name]]) == 0
    elif name == "list":
        write_listing(output, list_clips(made, None, Counter()))
    else:
        with Measurements(output, made, engines, "nothing") as known:
            if name == "resume":
                assert count_pending(known) == 0
            else:
                decision = write_outputs(made, engines, known)
                summary = {**decision.as_json(), "stages": engines, "thresholds": made.limits()}
                decided = time.perf_counter()
                write_report(output, made, known, summary)
                figures = {"report_seconds": round(time.perf_counter() - decided, 3)}
                figures |= {"kept": decision.status["kept"], "duplicates": decision.reasons["duplicate"]}
    seconds = time.perf_counter() - started
    busy = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": round(seconds, 3), "cpu_seconds": round(busy, 3), "peak_gib": round(peak, 3), **figures}


def measure(clips: int, people: int) -> dict[str, Any]:
    """All steps at one size, with the embeddings of `people` or, for 0, without."""
    with tempfile.TemporaryDirectory() as temporary:
        started = time.perf_counter()
        for name in ("make", *STEPS):
            code = f"import benchmarks.scale as s, json, pathlib; f = pathlib.Path({temporary!r})\n" + (
                f"s.make(f, {clips}, {people})" if name == "make" else f"print(json.dumps(s.step({name!r}, f)))"
            )
            out = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
            if name == "make":
                figures: dict[str, Any] = {"clips": clips, "made_in_s": round(time.perf_counter() - started, 1)}
            else:
                figures[name] = json.loads(out.splitlines()[-1])
        size = sum(p.stat().st_size for p in (Path(temporary) / "out").rglob("*.parquet"))
    return figures | {"bytes_per_clip": round(size / clips)}


def exponents(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Per step, the slope of log CPU seconds over log clips from 1e4 clips on, where start-up no longer counts."""
    large = [row for row in rows if row["clips"] >= 10_000]
    if len(large) < 2:
        return {}
    sizes = np.log([row["clips"] for row in large])
    return {
        name: round(float(np.polyfit(sizes, np.log([r[name]["cpu_seconds"] for r in large]), 1)[0]), 2)
        for name in STEPS
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=1_000_000, help="the largest size")
    parser.add_argument("--people", type=int, default=0, help="give all clips embeddings, of so many people's faces")
    parser.add_argument("--keep", action="store_true", help="write the figures to benchmarks/results/scale.json")
    args = parser.parse_args()
    rows = []
    size = 1000
    while size <= args.most:
        rows.append(measure(size, args.people))
        print(json.dumps(rows[-1]), flush=True)
        size *= 10
    figures: dict[str, Any] = {"sizes": rows, "exponents": exponents(rows)}
    if args.people:
        figures = {"people": args.people, **figures}
    print(json.dumps(figures["exponents"]))
    if args.keep:
        print(keep("scale-embeddings" if args.people else "scale", figures, "duckdb", "pyarrow", "numpy"))


if __name__ == "__main__":
    main()
