"""Which moments of a file the grid wants, and which of its frames come nearest. Pure functions of numbers."""

from __future__ import annotations

import numpy as np

TIE_S = 1e-6  # of two frames equally near, the earlier: not left to rounding


def grid_start(window: str, start_s: float, length_s: float, grid_s: float) -> float:
    """Time of the first grid frame, in seconds of the file, for a grid of `grid_s` seconds inside a span that starts at
    `start_s` and is `length_s` long. A span too short for the grid gives its own start."""
    free = max(0.0, length_s - grid_s)
    return start_s + (free / 2 if window == "middle" else 0.0)


def nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Indices of the entries of sorted `times` (n,) nearest to each of `wanted` (k,)."""
    between = (times[1:] + times[:-1]) / 2
    return np.searchsorted(between, wanted - TIE_S)
