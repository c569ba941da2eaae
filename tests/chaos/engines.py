"""What the storm measures with: the embedded engines, but for text and face. Their models take seconds to load, which
every killed worker would cost again, and what they see does not matter here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray

from stages import face, text
from stages.base import ClipError, Measured, Sample
from tests.curation import fakes
from tests.media import write_video

CLIPS = 24
BROKEN = {"broken.mp4": b"not a video", "empty.mp4": b"", "cut.mp4": None}


class SlowText(fakes.FakeText):
    """Takes its time in a worker, as a model does, so that there is something to disturb."""

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        if ray.is_initialized():
            time.sleep(0.2 * len(batch))
        return super().measure(batch)


def install() -> None:
    """Register the engines, in this process or in a Ray worker."""
    text.STAGE.engines["fake"] = SlowText
    face.STAGE.engines["fake"] = fakes.FakeFace


def config(clips: str, output: str, cache: Path) -> dict[str, Any]:
    """The contents of a sources.yaml."""
    return {
        "output": output,
        "sources": [{"name": "s", "kind": "folder", "root": clips}],
        "stages": {"text": {"engine": "fake"}, "face": {"engine": "fake"}},
        "frames": fakes.FRAMES,
        "thresholds": {**fakes.THRESHOLDS, "min_side": 96, "max_cut_score": 1.0},
        "execution": {"max_failed_fraction": 1.0},
        "storage": {"cache": str(cache)},
    }


def write_clips(folder: Path) -> None:
    """Clips that are kept, each with a motion of its own, and others that are rejected or fail."""
    folder.mkdir(parents=True)

    def moving(seed: int) -> Any:
        ground = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        return lambda i, w, h: np.roll(ground, i * (1 + seed % 5), axis=1)[:h, :w]

    for seed in range(CLIPS):
        write_video(folder / f"clip-{seed}.mp4", frames=12, size=(128, 128), fps=10, picture=moving(seed))
    write_video(folder / "small.mp4", frames=12, size=(64, 64), fps=10, picture=moving(98))
    write_video(folder / "short.mp4", frames=4, size=(128, 128), fps=10, picture=moving(99))
    whole = (folder / "clip-0.mp4").read_bytes()
    for name, content in BROKEN.items():
        (folder / name).write_bytes(whole[: len(whole) // 3] if content is None else content)
