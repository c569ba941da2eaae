"""The balanced sampler: a seeded, pure draw of clips by their sample weight."""

from __future__ import annotations

import numpy as np


def balanced_draw(weights: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Indices (count,) int64 drawn by `weights` (n,) float64, non-negative, in random order.

    Systematic resampling: clip i comes floor or ceil of count * weights[i] / sum(weights) times, so a clip whose weight
    was capped repeats no more often than the cap says. The same seed gives the same draw.
    Raises ValueError when there is no positive weight or one is negative or not finite.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise ValueError("sample weights must be finite, non-negative and not all zero")
    rng = np.random.default_rng(seed)
    # A random order first: with a fixed one, neighbours in the manifest would exclude each other.
    order = rng.permutation(len(weights))
    edges = np.cumsum(weights[order])
    points = (rng.random() + np.arange(count)) * (edges[-1] / max(count, 1))
    drawn = order[np.searchsorted(edges, np.minimum(points, np.nextafter(edges[-1], 0)), side="right")]
    return rng.permutation(drawn)
