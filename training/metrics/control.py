"""Control: the motion intensity measured on what came out, by the pipeline's own flow, beside the one asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flows.dis import PRESETS, dis_flow
from flows.intensity import magnitude, motion_intensity
from training.metrics.base import Score, Video

GRID_FPS = 4
PRESET = "portrait"  # curation's default


class Control:
    """M of the generated video."""

    name = "control"
    title = "Measured M"
    definition = (
        "motion intensity M of the generated video (Eq. 6 and 7, not capped) as curation measures it: frames at 4 per "
        "second, scaled to the side of the frame grid (512 unless the sample's record says otherwise), DIS flow, "
        f"preset {PRESET}; compared with the M asked for: Spearman's rank correlation, mean error, mean absolute error"
    )
    weights: tuple[str, ...] = ()
    packages: tuple[str, ...] = ("opencv-python-headless",)

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def measure(self, video: Video) -> Score:
        """value: M, px of the grid per 1/4 s; details: the M asked for. Raises ValueError where none was asked for."""
        if video.intensity is None:
            raise ValueError("has no intensity asked for to compare with")
        grid = frame_grid(video.frames, video.fps, video.grid_size)
        if len(grid) < 2:
            raise ValueError(f"has {len(grid)} frame at {GRID_FPS} per second, two are needed for a flow")
        return Score(motion_intensity(magnitude(dis_flow(grid, PRESETS[PRESET]))), {"asked": video.intensity})


def frame_grid(frames: np.ndarray, fps: float, size: int) -> np.ndarray:
    """The frames nearest to multiples of 1/4 s (all of them at 4 fps or less), their central square at `size`."""
    import cv2

    if fps > GRID_FPS:
        times = np.arange(int((len(frames) - 1) * GRID_FPS / fps + 1e-6) + 1) / GRID_FPS
        frames = frames[np.minimum(np.round(times * fps).astype(int), len(frames) - 1)]
    height, width = frames.shape[1:3]
    side = min(height, width)
    y, x = (height - side) // 2, (width - side) // 2
    flags = cv2.INTER_AREA if side >= size else cv2.INTER_CUBIC
    return np.stack([cv2.resize(f[y : y + side, x : x + side], (size, size), interpolation=flags) for f in frames])


def agreement(asked: Sequence[float], measured: Sequence[float]) -> dict[str, Any]:
    """How well measured M follows the asked one; spearman is None where one of them never changes.

    Spearman's interval is Fisher's, 95 %, with the variance for ranks of Bonett and Wright (2000).
    """
    error = np.asarray(measured) - np.asarray(asked)
    rho, interval = None, None
    if len(set(asked)) > 1 and len(set(measured)) > 1:
        from scipy.stats import spearmanr

        rho = float(spearmanr(asked, measured).statistic)
        if len(asked) > 3 and abs(rho) < 1:
            reach = 1.96 * np.sqrt((1 + rho**2 / 2) / (len(asked) - 3))
            interval = [float(np.tanh(np.arctanh(rho) + sign * reach)) for sign in (-1, 1)]
    by_asked = {
        f"{m:g}": {"videos": len(of), "mean": float(of.mean()), "std": float(of.std())}
        for m in sorted(set(asked))
        for of in [np.asarray([b for a, b in zip(asked, measured, strict=True) if a == m])]
    }
    return {
        "videos": len(error),
        "spearman": rho,
        "spearman_interval": interval,
        "mean_error": float(error.mean()),
        "mean_absolute_error": float(np.abs(error).mean()),
        "by_asked": by_asked,
    }
