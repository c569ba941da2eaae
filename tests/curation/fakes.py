"""Fake engines for tests of the runners: a model that kills or hangs its worker cannot be had otherwise.

Everything else in such a test is real: the files, the decoding, Ray, the store. `install` registers the fakes in this
process; Ray workers call it through a set-up hook (`RUNTIME_ENV`). What a fake does is named by the clip's file name.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages import face, motion, quality, scene_cut, text
from stages.base import ClipError, Engine, Measured, Params, Sample
from stages.frames import FrameSpec
from tests.curation.made import GOOD
from tests.media import write_video

ROOT = Path(__file__).resolve().parent.parent.parent
RUNTIME_ENV = {
    "worker_process_setup_hook": "tests.curation.fakes.install",
    "env_vars": {"PYTHONPATH": str(ROOT)},
}
# As a section of sources.yaml.
STAGES = {name: {"engine": "fake"} for name in ("cut", "quality", "text", "face", "motion")}
THRESHOLDS = {"min_quality": 0.3, "max_text_area": 0.02, "min_face_score": 0.5, "min_face_fraction": 0.75}
THRESHOLDS["max_duplicate_similarity"] = 1.0  # `write_clips` writes copies of one video
FRAMES = {"fps": 4, "count": 4, "size": 64}


class Fake:
    """Measures what `GOOD` says, at once."""

    Params = Params
    stage = ""

    def __init__(self, params: Params, spec: FrameSpec) -> None:
        self._spec = spec

    def version(self) -> str:
        return "1"

    def setup(self, device: str) -> None:
        pass

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        for sample in batch:
            assert sample.images().shape[0] == self._spec.count
        return [self.one(sample) for sample in batch]

    def one(self, sample: Sample) -> Measured:
        return Measured(dict(GOOD[self.stage]))


class FakeQuality(Fake):
    """Misbehaves on clips named after what they do."""

    stage = "quality"

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        for sample in batch:
            name = Path(sample.clip.path).name
            marker = Path(tempfile.gettempdir()) / f"{sample.clip.clip_id}-{sample.clip.stamp}.died"
            if name.startswith("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            if name.startswith("once") and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if name.startswith("hang"):
                time.sleep(3600)
            if name.startswith("raise"):
                raise ValueError(f"cannot make sense of {len(batch)} clip(s)")
        return super().measure(batch)

    def one(self, sample: Sample) -> Measured:
        nan = Path(sample.clip.path).name.startswith("nan")
        return Measured({"quality_score": float("nan"), "quality_frame": 0}) if nan else super().one(sample)


class FakeCut(Fake):
    stage = "cut"


class FakeText(Fake):
    stage = "text"


class Broken(Fake):
    """Its model does not load."""

    def setup(self, device: str) -> None:
        raise OSError("weights are damaged")


class FakeFace(Fake):
    stage = "face"

    def one(self, sample: Sample) -> Measured:
        box = [20.0, 10.0, 40.0, 30.0]
        return Measured(GOOD["face"] | {"face_frames": [0, 3], "frame_boxes": [box, box]})


class FakeMotion(Fake):
    """M is the clip's number, so that a value under a wrong clip shows."""

    stage = "motion"

    def one(self, sample: Sample) -> Measured:
        assert sample.grid().shape == (self._spec.count, self._spec.size, self._spec.size, 3)
        pairs = self._spec.count - 1
        columns: dict[str, Any] = {
            "motion_intensity": number(sample.clip.path),
            "camera_motion": 0.0,
            "face_motion": [[0.0] * 10] * pairs,
        }
        arrays = {"magnitude": np.zeros((pairs, 8, 8), np.uint8), "maximum": np.zeros(pairs, np.float32)}
        return Measured(columns, arrays)


def number(path: str) -> float:
    """The number at the end of a file name."""
    return float(Path(path).stem.rpartition("-")[2])


def install() -> None:
    """Register the fakes beside the real engines, as "fake"."""
    fakes: list[tuple[Any, type[Engine]]] = [
        (scene_cut.STAGE, FakeCut),
        (quality.STAGE, FakeQuality),
        (text.STAGE, FakeText),
        (face.STAGE, FakeFace),
        (motion.STAGE, FakeMotion),
    ]
    for stage, engine in fakes:
        stage.engines["fake"] = engine
    text.STAGE.engines["broken"] = Broken


def write_clips(folder: Path, *names: str) -> None:
    """Small real videos of these names, long enough for `FRAMES`."""
    folder.mkdir(parents=True, exist_ok=True)
    first, *rest = names
    write_video(folder / first, frames=20, size=(64, 64), fps=10)
    for name in rest:
        (folder / name).write_bytes((folder / first).read_bytes())
