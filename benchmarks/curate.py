"""What curation costs: per stage, on Ray against in-process against the ideal, and deciding over a whole dataset.

    python -m benchmarks.curate FOLDER [--copies 8] [--rows 106292] [--keep]

FOLDER holds video clips; each is measured `copies` times under different names. All ratios come from this one run. The
ideal is the sum of the bare stage times of the in-process run over the number of cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import keep


def curate(folder: Path, output: Path, runner: str) -> dict[str, Any]:
    """Run the command in a process of its own; its summary, wall seconds and the peak memory of its largest process."""
    config = folder / "sources.yaml"
    # What is measured here are copies: none is to be dropped as another's duplicate.
    thresholds = {"max_duplicate_similarity": 1}
    raw = {"output": str(output), "sources": [source(folder)], "thresholds": thresholds}
    config.write_text(json.dumps(raw))
    command = [sys.executable, "-m", "curation.run", str(config), "--runner", runner]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    summary: dict[str, Any] = json.loads((output / "summary.json").read_text())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {"summary": summary, "wall_s": wall, "peak_gib": peak}


def source(folder: Path) -> dict[str, str]:
    return {"name": "bench", "kind": "folder", "root": str(folder / "clips")}


def measure_clips(clips: Path, copies: int) -> dict[str, Any]:
    """Per-stage cost, and Ray against in-process against the ideal."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "clips").mkdir()
        videos = sorted(clips.glob("*.mp4"))
        for video in videos:
            for copy in range(copies):
                shutil.copy(video, folder / "clips" / f"{video.stem}-{copy}.mp4")
        bare = curate(folder, folder / "bare", "in-process")
        on_ray = curate(folder, folder / "ray", "ray")
    stages = bare["summary"]["stages"]
    total = len(videos) * copies
    cores = len(os.sched_getaffinity(0))
    busy = sum(stage["seconds"] for stage in stages.values())
    ray_run = on_ray["summary"]["run"]
    ray_s = ray_run["measuring_seconds"] - ray_run["startup_seconds"]
    bare_run = bare["summary"]["run"]
    bare_s = bare_run["measuring_seconds"] - bare_run["startup_seconds"]
    return {
        "clips": total,
        "kept": bare["summary"]["kept"],
        "cores": cores,
        "ms_per_measured_clip": {
            name: round(1000 * stage["seconds"] / stage["measured"], 1) for name, stage in stages.items()
        },
        "clips_per_s": {"in-process": round(total / bare_s, 3), "ray": round(total / ray_s, 3)},
        "startup_s": {"in-process": bare_run["startup_seconds"], "ray": ray_run["startup_seconds"]},
        "wall_s": {"in-process": round(bare["wall_s"], 1), "ray": round(on_ray["wall_s"], 1)},
        "ray_over_ideal": round(ray_s / (busy / cores), 3),
        "ray_over_in_process": round(ray_s / bare_s, 3),
        "in_process_over_bare_stages": round(bare_s / busy, 3),
        "peak_gib_largest_process": round(on_ray["peak_gib"], 2),
    }


def decide_rows(rows: int) -> dict[str, Any]:
    """Seconds and peak memory of deciding, resampling and writing over `rows` made measurements."""
    with tempfile.TemporaryDirectory() as temporary:
        code = f"from benchmarks.curate import decide_made; decide_made({temporary!r}, {rows})"
        out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    return figures


def decide_made(folder: str, rows: int) -> None:
    """In a process of its own: make the rows, decide them, print the figures as JSON."""
    from curation.outputs import write_outputs
    from tests.curation.made import Made, clip, config, random_changes

    rng = random.Random(0)
    made = Made(config(Path(folder)))
    made.listing(clip(f"{i // 1000}/{i}.mp4") for i in range(rows))
    for i in range(rows):
        made.measure(clip(f"{i // 1000}/{i}.mp4"), **(random_changes(rng) if i % 2 else {}))
        if i % 10_000 == 9_999:
            made.recorder.flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    started = time.perf_counter()
    with made.read() as measurements:
        decision = write_outputs(made.config, made.engines, measurements)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        json.dumps(
            {
                "rows": rows,
                "kept": decision.status["kept"],
                "seconds": round(seconds, 2),
                "peak_gib": round(after, 2),
                "peak_gib_before": round(before, 2),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curate", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of .mp4 clips")
    parser.add_argument("--copies", type=int, default=8)
    parser.add_argument("--rows", type=int, default=106_292, help="made rows to decide over")
    parser.add_argument("--keep", action="store_true", help="write the figures to benchmarks/results/curate.json")
    args = parser.parse_args()
    figures = {"decide": decide_rows(args.rows), "measure": measure_clips(args.folder, args.copies)}
    print(json.dumps(figures, indent=1))
    if args.keep:
        print(keep("curate", figures, "ray", "duckdb", "pyarrow", "opencv-python-headless", "rapidocr", "dlib-bin"))


if __name__ == "__main__":
    main()
