"""Which frames a clip is seen by, and the square crop of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class FrameSpec(BaseModel):
    """The `frames` section of sources.yaml: rate, count and size of the frame grid, its place in time and its crop.

    With `stride`, every stride-th frame of the file is taken and `fps` has no effect.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fps: float = Field(4.0, gt=0, le=240)
    stride: int | None = Field(None, ge=1)
    count: int = Field(16, ge=2, le=256)
    size: int = Field(512, ge=64, le=2048, multiple_of=8)
    window: Literal["middle", "first"] = "middle"
    crop: Literal["face", "center"] = "face"

    def step_s(self, file_fps: float) -> float:
        """Seconds between two grid frames of a file of this frame rate."""
        return 1.0 / self.fps if self.stride is None else self.stride / file_fps

    def span_s(self, file_fps: float) -> float:
        """Seconds from the first grid frame to the last: 3.75 for 16 frames at 4 fps."""
        return (self.count - 1) * self.step_s(file_fps)


@dataclass
class Frames:
    """Decoded frames of one clip.

    images: uint8 RGB (n, h, w, 3), upright, shorter side = spec.size.
    times_s: float64 (n,), presentation times of the frames chosen, seconds from the file's start.
    native: displayed (width, height) of the source picture that `images` was scaled from.
    decoder: "decord", "pyav" or "pillow".
    """

    images: np.ndarray
    times_s: np.ndarray
    native: tuple[int, int]
    decoder: str

    @property
    def scale(self) -> float:
        """Frame pixels per native pixel."""
        return min(self.images.shape[1:3]) / min(self.native)

    def through(self, crop: Sequence[float]) -> np.ndarray:
        """The square (n, size, size, 3) that `crop` (x0, y0, x1, y1 in native pixels) cuts out of the frames."""
        size = min(self.images.shape[1:3])
        x = round(crop[0] * self.scale)
        y = round(crop[1] * self.scale)
        return self.images[:, y : y + size, x : x + size]
