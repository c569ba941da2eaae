"""What a video shows, by the pipeline's own optical flow: how much moves and which way, and what action that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flows.intensity import foreground, magnitude, motion_intensity

DIRECTION = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
# Growth per px of path from which on a person comes closer. Rendered clips at 16 x 16 show 0.0014 to 0.0028 where one
# does, and at most 0.0011 in the other motions.
GROWTH = 0.0013
STILL = 1.0  # M below which a picture holds still, px per step


@dataclass(frozen=True)
class Shown:
    """What flow shows. Lengths in pixels of the grid.

    intensity: M of Eq. 7, not capped. x, y: mean motion of the foreground per step. there_and_back: share of the
    foreground's vertical path that it goes back again, 0 where it keeps its direction, near 1 where it swings.
    upright: share of the vertical in the foreground's path. growth: change of the logarithm of the foreground's size,
    per step.
    """

    intensity: float
    x: float
    y: float
    there_and_back: float
    upright: float
    growth: float

    def obeys(self, motion: str) -> bool:
        """Whether this is the motion asked for, one of examples.loop.MOTIONS."""
        if motion == "still":
            return self.intensity < STILL
        if motion == "nearer":
            return self.growth > GROWTH * self.intensity
        if motion == "head_nod":
            return self.there_and_back > 0.5 and self.upright > 0.5
        along = float(np.dot((self.x, self.y), DIRECTION[motion]))
        return along > math.hypot(self.x, self.y) * math.cos(math.pi / 4)


def shown(flow: np.ndarray) -> Shown:
    """What is shown by flow, float32 (pairs, h, w, 2), px per step."""
    magnitudes = magnitude(flow)
    masks = foreground(magnitudes)
    path = np.stack([f[mask].mean(0) for f, mask in zip(flow, masks, strict=True)])  # (pairs, 2)
    lengths = np.abs(path).sum(0)
    x, y = path.mean(0)
    return Shown(
        intensity=motion_intensity(magnitudes),
        x=float(x),
        y=float(y),
        there_and_back=1 - float(abs(path[:, 1].sum()) / max(lengths[1], 1e-9)),
        upright=float(lengths[1] / max(lengths.sum(), 1e-9)),
        growth=float(np.mean([divergence(f, mask) for f, mask in zip(flow, masks, strict=True)])),
    )


def divergence(flow: np.ndarray, mask: np.ndarray) -> float:
    """Relative growth per step, by least squares over the mask: flow = shift + growth (place - their middle)."""
    y, x = np.nonzero(mask)
    place = np.stack([x, y], -1) - np.array([x.mean(), y.mean()])
    vectors = flow[mask]
    return float((place * (vectors - vectors.mean(0))).sum() / max(float((place**2).sum()), 1e-9))
