"""Resampling over motion intensity (A.5): weights that make the expected draw even over the occupied bins.

Pure functions of counts. Clips of one bin share a weight, so nothing here grows with the dataset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curation.config import Resample


@dataclass(frozen=True)
class Weights:
    """Sample weights: the expected number of draws of a clip in an epoch of as many draws as there are clips.

    bins: float64 (bins,), one per motion bin, 0 for an empty bin. image: the weight of a still, or
    of a clip whose motion could not be told.
    """

    bins: np.ndarray
    image: float


def bin_weights(counts: np.ndarray, images: int, config: Resample) -> Weights:
    """Weights for `counts` (bins,) video clips per bin and `images` stills.

    Every occupied bin gets the same share of the draws, but no clip more than `max_repeat` draws an epoch; what a
    capped bin cannot take is spread evenly over the others. Stills stay out of the bins and get `image_share` of the
    draws, their natural share where that is None. The weights times the counts sum to the number of clips.
    """
    counts = np.asarray(counts, dtype=np.float64)
    videos = counts.sum()
    total = videos + images
    weights = np.zeros_like(counts)
    if not total:
        return Weights(weights, 0.0)
    share = images / total if config.image_share is None else config.image_share
    if not videos or not images:
        share = float(not videos)
    draws = (1 - share) * total
    # max_repeat bounds the repeats among the videos' own draws, as for a dataset without stills.
    room = config.max_repeat * counts * (draws / videos if videos else 0)
    mass = _water_fill(room, draws)
    occupied = counts > 0
    weights[occupied] = mass[occupied] / counts[occupied]
    return Weights(weights, share * total / images if images else 0.0)


def _water_fill(room: np.ndarray, total: float) -> np.ndarray:
    """Split `total` evenly over the bins with room, none above its room; requires total <= room.sum()."""
    mass = np.zeros_like(room)
    open_bins = np.flatnonzero(room > 0)
    for position, index in enumerate(open_bins[np.argsort(room[open_bins], kind="stable")]):
        mass[index] = min(room[index], (total - mass.sum()) / (len(open_bins) - position))
    return mass
