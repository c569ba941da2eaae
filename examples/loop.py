"""`make loop`: does a model that was trained on the pipeline's output obey?

Rendered people under known motion are curated, the embedded preset is trained on them, people it never saw are
animated, and what comes out is measured.

    python -m examples.loop [--clips N] [--steps N] [--seeds 0 1 2] [--out DIR]     the whole, an hour a seed
    python -m examples.loop --short                                                minutes; for continuous integration

Writes report.md, report.json and strip.png. Exits with 1 when the loss gap of identity is not above 1.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tqdm import tqdm

from examples.obedience import shown
from examples.rendering import render
from examples.strangers import stranger
from examples.video import write_video

RUNS = Path(__file__).resolve().parents[1] / "runs"
FPS = 8  # the grid's 4 frames a second, and the halfway frames that reference faces are taken from
FRAMES = 8
# Of examples.motions, and its highest speed, px per 1/4 s: that of M about 20, or as far as its path has room.
MOTIONS = {"left": 20.0, "right": 20.0, "up": 20.0, "down": 20.0, "nearer": 8.3, "nod": 40.0, "still": 0.0}
ASKED = (0.0, 5.0, 10.0, 15.0, 20.0)
# Frames of 16 x 16 pixels in blocks of 4 x 4, of which 12 of 48 frequencies are kept: the pipeline's flow still puts
# them in the order of their M, and what a network 64 wide need not carry it need not clean of noise. The more pixels
# share in a block, the more signal a noise level leaves: beta_end makes the noisy steps, which decide what moves where,
# more; with 0.1 they are nearly all, and too few are left that clean the picture.
SETTINGS = ("size=16", "patch=4", "latents=12", "channels=64", "text_dim=64", "batch=16", "beta_end=0.03")
SETTINGS += ("lr_decay=cosine", "sample_steps=50", "arcface_steps=150")
# The pipeline's captions P name the action too, and samples are made without P: it is left out, so that A has to tell.
SETTINGS += ("drop_text=1", "drop_image=0", "drop_clip=0")
UNSEEN = 1_000_000  # seeds of people from here on are never trained on
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 97.5 % quantile of t for that many seeds


@dataclass(frozen=True)
class Made:
    """One sampled video: what was asked, what the pipeline's flow shows, and whose face it is."""

    person: int
    motion: str
    asked: float
    measured: float
    obeyed: bool
    likeness: float
    identified: bool


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.loop", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RUNS / "loop")
    parser.add_argument("--clips", type=int, default=1050)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--people", type=int, default=4, help="unseen people to animate")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="settings of training.fit")
    parser.add_argument("--short", action="store_true", help="64 clips, 100 steps, one person")
    args = parser.parse_args(argv)
    if args.short:
        args.clips, args.steps, args.people = 64, 100, 1
        args.set = ["arcface_steps=80", "sample_steps=8", *args.set]
    seconds = {"render": clock(lambda: render_clips(args.out / "input", args.clips))}
    run = args.out / "run"
    seconds["curate"] = clock(lambda: curate(args.out, run))
    fits = {}
    for seed in args.seeds:
        fit = args.out / f"fit-{seed}"
        seconds[f"fit {seed}"] = clock(lambda fit=fit, seed=seed: train(run, fit, args.steps, seed, args.set, args.out))
        fits[seed] = json.loads((fit / "fit.json").read_text())
    started = time.monotonic()
    made = animate(args.out, run, args.out / f"fit-{args.seeds[0]}", args.people)
    seconds["sample"] = time.monotonic() - started
    report = summary(made, fits, seconds)
    (args.out / "report.json").write_text(json.dumps(report | {"made": [asdict(m) for m in made]}, indent=1))
    (args.out / "report.md").write_text(text := as_text(report))
    print(text)
    if not report["gaps"]["identity"]["mean"] > 1:
        print("the loss gap of identity is not above 1", file=sys.stderr)
        return 1
    return 0


def clock(work: Any) -> float:
    """Seconds that it takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def render_clips(folder: Path, count: int) -> None:
    """`count` videos of as many people, each in one of MOTIONS, at speeds spread evenly up to its highest."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{list(MOTIONS)[i % len(MOTIONS)]}_{i:05}.mp4" for i in range(count)]
    wanted = [folder / name for name in names if not (folder / name).exists()]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for _ in tqdm(pool.map(render_clip, wanted), total=len(wanted), desc="render"):
            pass


def render_clip(path: Path) -> None:
    """The video whose motion and person stand in its name."""
    motion, _, number = path.stem.partition("_")
    i = int(number)
    portrait, ground = stranger(i)
    speed = MOTIONS[motion] * ((i * 0.618034) % 1)  # evenly spread however many there are
    clip = render(motion, speed, fps=FPS, seconds=(FRAMES + 1) / 4, portrait=portrait, ground=ground)
    temporary = path.with_suffix(".tmp.mp4")
    write_video(temporary, clip.frames(), FPS, options={"preset": "veryfast", "crf": "18"})
    temporary.rename(path)


def curate(out: Path, run: Path) -> None:
    """The real pipeline over the rendered videos."""
    config = {
        "output": str(run.resolve()),
        "profile": "embedded",
        "sources": [{"name": "loop", "kind": "folder", "root": str((out / "input").resolve())}],
        "frames": {"count": FRAMES, "crop": "center"},
        "stages": {"caption": {"engine": "kinematic", "adverbs": False}},
        "split": {"val_fraction": 0.1},
        "thresholds": {"max_duplicate_similarity": 1},  # many of these people are one portrait in other colours
    }
    (out / "sources.yaml").write_text(yaml.safe_dump(config))
    command(["curation.run", str(out / "sources.yaml")])


def train(run: Path, fit: Path, steps: int, seed: int, settings: list[str], out: Path) -> None:
    """`python -m training.fit` with the embedded preset."""
    chosen = [f"steps={steps}", f"seed={seed}", *SETTINGS, *settings]
    more = [part for setting in chosen for part in ("--set", setting)]
    command(["training.fit", str(run), "--output", str(fit), "--cache", str(out / "cache"), *more])


def command(words: list[str]) -> None:
    """Run one of our command lines. Raises CalledProcessError when it fails."""
    subprocess.run([sys.executable, "-m", *words], check=True)


def animate(out: Path, run: Path, fit: Path, people: int) -> list[Made]:
    """Animate unseen people over all motions and intensities, and measure each video."""
    from PIL import Image

    from training.requests import Request
    from training.sampler import Sampler, as_frames, face_embedding, video_flow

    words = phrases(run)
    sampler = Sampler(fit, "cpu", "dlib")
    made, rows = [], []
    pictures, embeddings = [], []
    for person in range(people):
        portrait, ground = stranger(UNSEEN + person)
        path = out / "unseen" / f"{person}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(render("still", portrait=portrait, ground=ground).frame(0)).save(path)
        pictures.append(path)
        _, frame, warp = sampler.reference(path)
        embeddings.append(face_embedding(sampler.pipeline, frame, warp))
    known = np.stack(embeddings)
    for person, path in enumerate(pictures):
        for motion in MOTIONS:
            for asked in ASKED if motion != "still" else ASKED[:1]:
                request = Request(image=path, action=words[motion], intensity=asked, seed=person)
                video = sampler.make(request)
                frames = as_frames(video)
                seen = shown(video_flow(frames, sampler.spec.size))
                # The motions pass through the reference's place in the middle of the video.
                warp = sampler.reference(path)[2]
                cosines = known @ face_embedding(sampler.pipeline, video[len(video) // 2] * 2 - 1, warp)
                made.append(
                    Made(
                        person,
                        motion,
                        asked,
                        seen.intensity,
                        seen.obeys(motion),
                        float(cosines[person]),
                        bool(cosines.argmax() == person),
                    )
                )
                rows.append(np.concatenate(list(frames), axis=1))
    Image.fromarray(np.concatenate(rows)).save(out / "strip.png")
    return made


def phrases(run: Path) -> dict[str, str]:
    """What the pipeline most often calls each motion, where there is enough of it to see: the action phrase A."""
    from manifests.shards import read_manifest

    rows = read_manifest(run, ["path", "action", "motion_intensity"]).to_pylist()
    found = {}
    for motion in MOTIONS:
        medium = [row for row in rows if row["path"].startswith(motion + "_") and row["motion_intensity"] > 3]
        medium = medium or [row for row in rows if row["path"].startswith(motion + "_")]  # still
        found[motion] = Counter(row["action"] for row in medium).most_common(1)[0][0]
    return found


def summary(made: list[Made], fits: dict[int, Any], seconds: dict[str, float]) -> dict[str, Any]:
    """Figures of the report."""
    import pandas as pd

    table = pd.DataFrame([asdict(m) for m in made])
    moving = [m for m in made if m.asked > 0 or m.motion == "still"]  # at M = 0 there is no motion to obey in
    gaps = {}
    for name in next(iter(fits.values()))["gaps"]:
        values = np.array([fit["gaps"][name] for fit in fits.values()])
        gaps[name] = {"mean": float(values.mean()), "seeds": values.tolist(), "low": interval_low(values)}
    return {
        "spearman": float(table["asked"].rank().corr(table["measured"].rank())),
        "curve": {f"{m:g}": table.loc[table["asked"] == m, "measured"].describe().to_dict() for m in ASKED},
        "obeyed": sum(m.obeyed for m in moving) / len(moving),
        "identified": sum(m.identified for m in made) / len(made),
        "likeness": float(table["likeness"].mean()),
        "gaps": gaps,
        "held_out": all(fit["held_out"] for fit in fits.values()),
        "steps": next(iter(fits.values()))["step"],
        "control_shown": control_shown(gaps, fits),
        "seconds": {name: round(value) for name, value in seconds.items()},
    }


def control_shown(gaps: dict[str, Any], fits: dict[int, Any]) -> bool:
    """Whether on held-out clips the gaps of action and motion exceed 1 with a 95 % interval over three seeds."""
    held_out = all(fit["held_out"] for fit in fits.values())
    lows = [gaps[name]["low"] for name in ("action", "motion") if name in gaps]
    return held_out and len(fits) >= 3 and len(lows) == 2 and all(low is not None and low > 1 for low in lows)


def interval_low(values: np.ndarray) -> float | None:
    """Lower end of the 95 % interval of the mean over seeds; None for fewer than two or more than five seeds."""
    if len(values) not in STUDENT:
        return None
    return float(values.mean() - STUDENT[len(values)] * values.std(ddof=1) / math.sqrt(len(values)))


def as_text(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"# Closed loop: {report['steps']} steps",
        "",
        "| asked M | measured M, mean | least | most |",
        "|---|---|---|---|",
    ]
    for asked, row in report["curve"].items():
        lines.append(f"| {asked} | {row['mean']:.2f} | {row['min']:.2f} | {row['max']:.2f} |")
    lines += [
        "",
        f"- Spearman of measured and asked M: {report['spearman']:.3f}",
        f"- actions obeyed (examples/obedience.py; M > 0, or still): {report['obeyed']:.0%}",
        f"- face nearest to its own reference among the unseen people: {report['identified']:.0%}, "
        f"mean cosine {report['likeness']:.3f} (phi is the network of the loss)",
    ]
    where = "held-out clips" if report["held_out"] else "the clips trained on"
    for name, gap in report["gaps"].items():
        low = "" if gap["low"] is None else f", 95 % interval from {gap['low']:.3f}"
        lines.append(f"- loss gap of {name} on {where}: {gap['mean']:.3f} over {len(gap['seeds'])} seed(s){low}")
    shown = "is shown" if report["control_shown"] else "is not shown"
    lines.append(f"- control of action and motion on held-out clips (both intervals above 1, three seeds): {shown}")
    lines.append(f"- seconds: {', '.join(f'{name} {value}' for name, value in report['seconds'].items())}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
