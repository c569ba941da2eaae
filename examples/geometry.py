"""Similarity transforms of points, and soft edges."""

from __future__ import annotations

import math

import numpy as np


def smoothstep(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def similar(points: np.ndarray, about: tuple[float, float], scale: float, roll: float, shift: np.ndarray) -> np.ndarray:
    """(..., 2) points scaled and rotated (clockwise on screen) about a point, then shifted."""
    x, y = points[..., 0] - about[0], points[..., 1] - about[1]
    c, s = scale * math.cos(roll), scale * math.sin(roll)
    return np.stack([c * x - s * y + (about[0] + shift[0]), s * x + c * y + (about[1] + shift[1])], -1)


def dissimilar(
    points: np.ndarray, about: tuple[float, float], scale: float, roll: float, shift: np.ndarray
) -> np.ndarray:
    """The inverse of `similar`."""
    return similar(points - shift, about, 1 / scale, -roll, np.zeros(2))


def radius(points: np.ndarray, centre: tuple[float, float], axes: tuple[float, float]) -> np.ndarray:
    """Distance of (..., 2) points from the centre of an ellipse, in its half axes."""
    return np.hypot((points[..., 0] - centre[0]) / axes[0], (points[..., 1] - centre[1]) / axes[1])
