"""`make loop`: does a model that was trained on the pipeline's output obey?

Rendered people under known motion are curated, the embedded preset is trained on them, people it never saw are
animated, and what comes out is measured.

    python -m examples.loop [--clips N] [--steps N] [--frames N] [--seeds 0 1 2] [--out DIR]
    python -m examples.loop --short        minutes; for continuous integration

Run again, it goes on where it was. Seeds are trained and sampled side by side: two to three hours for three on two
quiet cores.

Writes report.md, report.json and strip-SEED.png. Exits with 1 when the loss gap of identity is not above 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tqdm import tqdm

from examples import motions
from examples.loop_report import ASKED, Made, as_text, summary
from examples.obedience import shown
from examples.rendering import render
from examples.strangers import stranger
from examples.video import write_video

RUNS = Path(__file__).resolve().parents[1] / "runs"
FPS = 8  # the grid's 4 frames a second, and the halfway frames that reference faces are taken from
# Of examples.motions, and the speed, px per 1/4 s, at which its M is about 20.
MOTIONS = {"left": 20.0, "right": 20.0, "up": 20.0, "down": 20.0, "nearer": 8.9, "head_nod": 24.0, "still": 0.0}
BEYOND = 1.12  # clips are as fast as this times that speed, so that an M of 20 lies within what is learned
# Frames of 24 x 24 pixels in blocks of 4 x 4, of which 16 of 48 frequencies are kept: the pipeline's flow still puts
# them in the order of their M and tells their actions apart, and what a network 64 wide need not carry, it need not
# clean of noise. The louder latents are, the more signal a noise level leaves; beta_end makes the noisy steps, which
# decide what moves where, more; with 0.1 they are nearly all, and too few are left that clean the picture.
SETTINGS = ("size=24", "patch=4", "latents=16", "latent_scale=0.5", "channels=64", "text_dim=64", "batch=16")
SETTINGS += ("beta_end=0.03", "lr_decay=cosine", "sample_steps=50", "arcface_steps=150")
# The pipeline's captions P name the action too, and samples are made without P: it is left out, so that A has to tell.
SETTINGS += ("drop_text=1", "drop_image=0", "drop_clip=0")
UNSEEN = 1_000_000  # seeds of people from here on are never trained on


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.loop", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RUNS / "loop")
    parser.add_argument("--clips", type=int, default=1050)
    parser.add_argument("--steps", type=int, default=3300)
    parser.add_argument("--frames", type=int, default=8, help="of a clip")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--people", type=int, default=4, help="unseen people to animate")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="settings of training.fit")
    parser.add_argument("--short", action="store_true", help="64 clips, 150 steps, one person")
    args = parser.parse_args(argv)
    if args.short:
        args.clips, args.steps, args.people, args.seeds = 64, 150, 1, [0]
        args.set = ["arcface_steps=80", "sample_steps=8", *args.set]
    seconds = {"render": clock(lambda: render_clips(args.out / "input", args.clips, args.frames))}
    run = args.out / "run"
    seconds["curate"] = clock(lambda: curate(args.out, run, args.frames))
    seconds["fit"] = clock(lambda: train(run, args.out, args.steps, args.seeds, args.set))
    fits = {seed: json.loads((args.out / f"fit-{seed}" / "fit.json").read_text()) for seed in args.seeds}
    started = time.monotonic()
    made = sample(args.out, run, args.seeds, args.people)
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


def render_clips(folder: Path, count: int, frames: int) -> None:
    """`count` videos of as many people, each in one of MOTIONS, at speeds spread evenly up to its highest."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{list(MOTIONS)[i % len(MOTIONS)]}_{i:05}.mp4" for i in range(count)]
    wanted = [folder / name for name in names if not (folder / name).exists()]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for _ in tqdm(pool.map(partial(render_clip, frames), wanted), total=len(wanted), desc="render"):
            pass


def render_clip(frames: int, path: Path) -> None:
    """The video whose motion and person stand in its name, long enough for a grid of this many frames."""
    motion, _, number = path.stem.rpartition("_")
    i = int(number)
    portrait, ground = stranger(i)
    speed = highest(motion, frames) * ((i * 0.618034) % 1)  # evenly spread however many there are
    clip = render(motion, speed, fps=FPS, seconds=(frames + 1) / 4, portrait=portrait, ground=ground)
    temporary = path.with_suffix(".tmp.mp4")
    write_video(temporary, clip.frames(), FPS, options={"preset": "veryfast", "crf": "18"})
    temporary.rename(path)


def highest(motion: str, frames: int) -> float:
    """The highest speed of a motion, px per 1/4 s: somewhat beyond an M of 20, or as far as its path has room."""
    kind, wanted = motions.MOTIONS[motion], BEYOND * MOTIONS[motion]
    return wanted if kind.period_s else min(wanted, kind.room / (frames + 1))


def asked_of(motion: str, frames: int) -> list[float]:
    """Of ASKED, the M that a motion has room for in so many frames: at its speed in MOTIONS M is taken for 20."""
    most = 20 * highest(motion, frames) / MOTIONS[motion] if MOTIONS[motion] else 0
    return [m for m in ASKED if m <= most]


def curate(out: Path, run: Path, frames: int) -> None:
    """The real pipeline over the rendered videos."""
    config = {
        "output": str(run.resolve()),
        "profile": "embedded",
        "sources": [{"name": "loop", "kind": "folder", "root": str((out / "input").resolve())}],
        "frames": {"count": frames, "crop": "center"},
        "stages": {"caption": {"engine": "kinematic", "adverbs": False}},
        "split": {"val_fraction": 0.1},
        "thresholds": {"max_duplicate_similarity": 1},  # many of these people are one portrait in other colours
    }
    (out / "sources.yaml").write_text(yaml.safe_dump(config))
    subprocess.run([sys.executable, "-m", "curation.run", str(out / "sources.yaml")], check=True)


def train(run: Path, out: Path, steps: int, seeds: Sequence[int], settings: Sequence[str]) -> None:
    """`python -m training.fit` with the embedded preset, for all seeds side by side. The first shows its progress for
    all; what the others say goes to fit-N.log. Exits with a line when one of them fails."""
    with ExitStack() as stack:
        running = {}
        for seed in seeds:
            chosen = [f"steps={steps}", f"seed={seed}", *SETTINGS, *settings]
            words = ["training.fit", str(run), "--output", str(out / f"fit-{seed}"), "--cache", str(out / "cache")]
            words += [part for setting in chosen for part in ("--set", setting)]
            log = None if seed == seeds[0] else stack.enter_context((out / f"fit-{seed}.log").open("wb"))
            running[seed] = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": str(threads_each(seeds))},
            )
            stack.callback(running[seed].terminate)  # of those that still run when one of them, or this, is ended
        failed = [seed for seed, process in running.items() if process.wait()]
    if failed:
        sys.exit(f"training failed with seed {', '.join(map(str, failed))}; all but the first write {out}/fit-SEED.log")


def threads_each(seeds: Sequence[int]) -> int:
    """Threads of a process where each seed has one of its own."""
    return max(1, (os.cpu_count() or 1) // len(seeds))


def sample(out: Path, run: Path, seeds: Sequence[int], people: int) -> list[Made]:
    """Animate unseen people with each seed's model, side by side; the first shows its progress for all."""
    from PIL import Image

    (out / "unseen").mkdir(exist_ok=True)
    pictures = [out / "unseen" / f"{person}.png" for person in range(people)]
    for person, path in enumerate(pictures):
        portrait, ground = stranger(UNSEEN + person)
        Image.fromarray(render("still", portrait=portrait, ground=ground).frame(0)).save(path)
    with ProcessPoolExecutor(len(seeds), mp_context=get_context("spawn")) as pool:
        work = partial(animate, out, phrases(run), pictures, threads_each(seeds))
        return [video for videos in pool.map(work, seeds, [seed != seeds[0] for seed in seeds]) for video in videos]


def animate(
    out: Path, words: dict[str, str], pictures: list[Path], threads: int, seed: int, silent: bool
) -> list[Made]:
    """Animate the faces on `pictures` over all motions and intensities, and measure each video. Writes strip-SEED.png.

    words: the action phrase of each motion.
    """
    import torch
    from PIL import Image

    from training.requests import Request
    from training.sampler import Sampler, as_frames, face_embedding, video_flow

    torch.set_num_threads(threads)
    sampler = Sampler(out / f"fit-{seed}", "cpu", "dlib")
    faces = [sampler.reference(path) for path in pictures]
    known = np.stack([face_embedding(sampler.pipeline, frame, warp) for _, frame, warp in faces])
    wanted = [
        (*who, motion, m)
        for who in enumerate(pictures)
        for motion in MOTIONS
        for m in asked_of(motion, sampler.spec.count)
    ]
    made, rows = [], []
    for person, path, motion, asked in tqdm(wanted, desc="sample", disable=silent):
        request = Request(image=path, action=words[motion], intensity=asked, seed=person)
        video = sampler.make(request)
        frames = as_frames(video)
        seen = shown(video_flow(frames, sampler.spec.size))
        # The motions pass through the reference's place in the middle of the video.
        cosines = known @ face_embedding(sampler.pipeline, video[len(video) // 2] * 2 - 1, faces[person][2])
        likeness, identified = float(cosines[person]), bool(cosines.argmax() == person)
        made.append(Made(seed, person, motion, asked, seen.intensity, seen.obeys(motion), likeness, identified))
        rows.append(np.concatenate(list(frames), axis=1))
    Image.fromarray(np.concatenate(rows)).save(out / f"strip-{seed}.png")
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


if __name__ == "__main__":
    sys.exit(main())
