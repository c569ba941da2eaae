"""Optical flow as colours, as in the Middlebury benchmark (Baker et al. 2011): hue is direction, strength is length."""

from __future__ import annotations

import numpy as np

# Hues between two neighbouring pure colours, from red over yellow, green, cyan, blue and magenta back to red.
STEPS = (15, 6, 4, 11, 13, 6)


def colour_wheel() -> np.ndarray:
    """float64 (55, 3), RGB 0..255."""
    corners = [(255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255), (255, 0, 0)]
    parts = []
    for start, end, steps in zip(corners[:-1], corners[1:], STEPS, strict=True):
        share = np.arange(steps)[:, None] / steps
        rising = np.floor(255 * share)
        change = np.sign(np.subtract(end, start))
        parts.append(np.where(change > 0, rising, np.where(change < 0, 255 - rising, start)))
    return np.concatenate(parts)


def flow_colours(flow: np.ndarray, full: float) -> np.ndarray:
    """uint8 RGB (..., h, w, 3). flow: (..., h, w, 2), px. White is no motion; `full` px and more are full colour."""
    wheel = colour_wheel() / 255
    u, v = flow[..., 0] / max(full, 1e-6), flow[..., 1] / max(full, 1e-6)
    length = np.minimum(np.hypot(u, v), 1.0)[..., None]
    hue = (np.arctan2(-v, -u) / np.pi + 1) / 2 * (len(wheel) - 1)
    below = np.floor(hue).astype(np.int64)
    share = (hue - below)[..., None]
    colour = (1 - share) * wheel[below] + share * wheel[(below + 1) % len(wheel)]
    return np.floor(255 * (1 - length * (1 - colour))).astype(np.uint8)
