"""How far the measured motion intensity M lies from the true one, on a real face under known motion, through H.264.

    python -m benchmarks.motion_accuracy [--preset portrait] [--speeds 1 2 3 5 8 12 15] [--keep]

Each clip is rendered, encoded, decoded and measured as the pipeline does it; the true M is the formula on the true flow
between the very frames that were decoded. `speed` is px of the 512 grid per 1/4 s along the path of the motion (of a
nod, a shake or talking the mean over a period), so that M itself is another number wherever not everything moves alike.
Errors where the true M is above 20 stand in brackets: it is capped there, and they do not count.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import keep
from examples.rendering import render
from examples.video import write_video
from flows.dis import PRESETS, dis_flow
from flows.intensity import CAP, magnitude, motion_intensity
from stages.decode import Decoder
from stages.frames import FrameSpec

# The person, the head or the camera moves: what the accuracy is stated for.
RIGID = ("right", "up", "down", "nearer", "tilt_right", "pan_left")
# A part of the face moves and its surroundings give way: reported beside.
PARTS = ("nod", "shake", "talk")
SPEEDS = (1, 2, 3, 5, 8, 12, 15)
ENCODING = {"preset": "veryfast", "crf": "18"}


def measure(decoder: Decoder, folder: Path, motion: str, speed: float, preset: str, fps: float = 20) -> dict[str, Any]:
    """One clip: its true and its measured M in px, the error in percent, and CPU seconds of the flow."""
    clip = render(motion, speed, fps=fps)
    path = folder / f"{motion}_{speed}_{fps}.mp4"
    write_video(path, clip.frames(), clip.fps, options=ENCODING)
    frames = decoder.frames(str(path), "video", FrameSpec(), decoder.header(str(path), "video"))
    true = motion_intensity(magnitude(np.stack([clip.true_flow(a, b) for a, b in pairwise(frames.times_s)])))
    started = time.process_time()
    found = motion_intensity(magnitude(dis_flow(frames.images, PRESETS[preset])))
    seconds = time.process_time() - started
    path.unlink()
    return {
        "motion": motion,
        "speed": speed,
        "true": true,
        "measured": found,
        "error": 100 * (found / true - 1),
        "seconds": seconds,
    }


def table(rows: Sequence[dict[str, Any]], motions: Sequence[str], speeds: Sequence[float]) -> str:
    """Errors in percent per motion and speed, and the median and largest of their sizes per speed."""
    cells = {(row["motion"], row["speed"]): f"{row['error']:+.1f}" for row in rows}
    cells |= {(row["motion"], row["speed"]): f"({row['error']:+.1f})" for row in rows if row["true"] > CAP}
    lines = ["| error of M, % | " + " | ".join(f"{s:g} px" for s in speeds) + " |", "|---" * (len(speeds) + 1) + "|"]
    lines += [f"| {m} | " + " | ".join(cells[m, s] for s in speeds) + " |" for m in motions]
    per_speed = [summary([row for row in rows if row["speed"] == s]) for s in speeds]
    for name in ("median_size", "largest_size"):
        lines.append(f"| {name} | " + " | ".join(f"{figures[name]:.1f}" for figures in per_speed) + " |")
    return "\n".join(lines)


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Over the rows whose true M is not capped: median and largest size of the error and its median, %; median CPU
    seconds of a clip's flow."""
    errors = np.array([row["error"] for row in rows if row["true"] <= CAP])
    return {
        "median_size": round(float(np.median(np.abs(errors))), 2),
        "largest_size": round(float(np.abs(errors).max()), 2),
        "median": round(float(np.median(errors)), 2),
        "flow_cpu_seconds": round(float(np.median([row["seconds"] for row in rows])), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="portrait")
    parser.add_argument("--speeds", type=float, nargs="+", default=SPEEDS, metavar="PX")
    parser.add_argument("--keep", action="store_true", help="write the figures to benchmarks/results")
    options = parser.parse_args()
    figures: dict[str, Any] = {"preset": options.preset}
    with tempfile.TemporaryDirectory() as folder, Decoder(120) as decoder:
        for name, motions in (("rigid", RIGID), ("parts", PARTS)):
            rows = [measure(decoder, Path(folder), m, s, options.preset) for m in motions for s in options.speeds]
            print(f"{name}, preset {options.preset}\n{table(rows, motions, options.speeds)}\n{summary(rows)}\n")
            rounded = [{k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
            figures[name] = {"summary": summary(rows), "clips": rounded}
    if options.keep:
        print(keep("motion_accuracy", figures, "opencv-python-headless", "numpy", "av", "decord"))


if __name__ == "__main__":
    main()
