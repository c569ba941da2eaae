"""Motion intensity M: Eq. 6 and 7 of MotionCharacter (arXiv 2411.18281), on the optical flow of a clip's frame grid."""

from __future__ import annotations

import numpy as np

CAP = 20.0  # A.5: what the model is conditioned on


def magnitude(flow: np.ndarray) -> np.ndarray:
    """|f|: float32 (N-1, h, w), px. flow: float32 (N-1, h, w, 2), (x, y) displacement from a frame to the next, px."""
    return np.hypot(flow[..., 0], flow[..., 1])


def foreground(magnitudes: np.ndarray) -> np.ndarray:
    """The mask of Eq. 6, bool (N-1, h, w): where |f_i| > tau_i, the mean of |f_i| over all pixels.

    Where no pixel of a pair lies above the mean, the pair is still or moves as one, and Eq. 6 would be 0/0: there the
    whole picture is foreground.
    """
    mask = magnitudes > _means(magnitudes)
    mask[~mask.any(axis=(1, 2))] = True
    return mask


def foreground_means(magnitudes: np.ndarray) -> np.ndarray:
    """Eq. 6, float64 (N-1,): the mean of |f_i| over the foreground, px. A still pair gives 0, a uniform shift by k
    gives k."""
    return np.asarray(np.mean(magnitudes, axis=(1, 2), dtype=np.float64, where=foreground(magnitudes)))


def motion_intensity(magnitudes: np.ndarray) -> float:
    """M, Eq. 7, not capped: the mean of Eq. 6 over the N-1 pairs, px per grid step. magnitudes: float32 (N-1, h, w).

    The paper's sum runs to N-1 over N frames by a slip; there are N-1 pairs, and it is their mean.
    """
    return float(foreground_means(magnitudes).mean())


def capped(intensity: float, cap: float = CAP) -> float:
    """M as the model is conditioned on it: 0..cap."""
    return min(intensity, cap)


def _means(magnitudes: np.ndarray) -> np.ndarray:
    """tau, float64 (N-1, 1, 1)."""
    return magnitudes.mean(axis=(1, 2), dtype=np.float64, keepdims=True)
