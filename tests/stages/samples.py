"""Samples for the tests of stages: made pictures, and the real clips decoded once."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from stages.base import ClipError, Measured, Sample, Stage
from stages.clip import Clip, Kind
from stages.decode import Decoder
from stages.frames import Frames, FrameSpec

DRIVING = (0, 6, 9, 10, 11, 12, 14, 18, 19, 20)
NAMES = [*(f"driving_d{i}.mp4" for i in DRIVING), "source_s13.mp4", "source_s20.mp4", "source_s32.mp4"]
FEW = ["driving_d0.mp4", "driving_d11.mp4", "driving_d14.mp4", "source_s13.mp4", "source_s32.mp4"]
STILLS = [f"art_{number}.png" for number in (0, 1, 2, 5, 7, 9)]


def sample(images: np.ndarray, kind: Kind = "video", name: str = "made.mp4") -> Sample:
    """A sample of these frames, uint8 RGB (n, h, w, 3), at their native size."""
    height, width = images.shape[1:3]
    frames = Frames(images, np.arange(len(images)) / 4, (width, height), "pyav")
    return Sample(Clip("made", name, kind, "stamp"), {"width": width, "height": height}, frames)


@cache
def real(path: Path) -> Sample:
    """The clip or still at `path`: its width and height and its frames; driving_d0 has only 12 of them."""
    kind: Kind = "video" if path.suffix == ".mp4" else "image"
    spec = FrameSpec(count=12 if path.stem == "driving_d0" else 16)
    header = _decoder().header(str(path), kind)
    frames = _decoder().frames(str(path), kind, spec, header)
    columns = {"width": header.width, "height": header.height}
    return Sample(Clip("real", path.name, kind, "stamp"), columns, frames)


@cache
def _decoder() -> Decoder:
    decoder = Decoder(60)
    atexit.register(decoder.close)
    return decoder


def columns_of(result: Measured | ClipError) -> dict[str, Any]:
    """The columns of a sample that could be measured."""
    assert isinstance(result, Measured), result
    return result.columns


def verdict(stage: Stage, columns: Mapping[str, Any], thresholds: Mapping[str, float]) -> str | None:
    """Reason of the stage's first rule that rejects."""
    return next((r.reason for r in stage.rules if r.rejects(columns[r.column], thresholds)), None)
