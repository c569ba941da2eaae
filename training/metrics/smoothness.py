"""Motion Smoothness of VBench (Huang et al. 2024, arXiv 2311.17982): how well the odd frames can be interpolated."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stages import weights
from training.metrics.base import Score, Video

Interpolate = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Two uint8 frames (h, w, 3) -> the frame between them, uint8."""


class MotionSmoothness:
    """(255 - MAE) / 255 between each odd frame and what AMT interpolates in its place."""

    name = "motion_smoothness"
    title = "Motion Smoothness"
    definition = (
        "VBench: every second frame from the first is kept, the ones between are interpolated by AMT-S (Li et al. "
        "2023, arXiv 2304.09790) at native resolution, padded by its border to multiples of 16 (at least 128); (255 - "
        "mean absolute difference to the real odd frames) / 255, mean over them; the last frame of an even number has "
        "no right neighbour and does not count. The value depends on the rate that the file was saved at"
    )
    weights: tuple[str, ...] = ("amt-s",)
    packages: tuple[str, ...] = ("torch",)

    def setup(self, device: str) -> None:
        """Loads AMT-S."""
        (path,) = weights.require(self.weights).values()
        from training.metrics.amt import Interpolator

        self.interpolate = Interpolator(weights.load_state_dict(path), device)

    def measure(self, video: Video) -> Score:
        """details: `mae`, the mean absolute difference of each odd frame, of 255."""
        return smoothness(video.frames, self.interpolate)


def smoothness(frames: np.ndarray, interpolate: Interpolate) -> Score:
    """The score of uint8 frames (N, h, w, 3), N >= 3."""
    if len(frames) < 3:
        raise ValueError(f"has {len(frames)} frames, three are needed to interpolate one")
    errors = []
    for i in range(1, len(frames) - 1, 2):
        between = interpolate(frames[i - 1], frames[i + 1])
        errors.append(float(np.abs(frames[i].astype(np.int16) - between).mean()))
    return Score((255.0 - float(np.mean(errors))) / 255.0, {"mae": errors})
