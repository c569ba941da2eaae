"""How much of a picture text covers, whatever engine read it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# corners (4, 2) as x, y in frame pixels; what was read there; the recogniser's score, 0..1
Reading = tuple[np.ndarray, str, float]


def text_area(readings: Iterable[Reading], shape: tuple[int, int], min_characters: int, min_score: float) -> float:
    """Share (0..1) of a frame of `shape` (height, width) that lies under boxes whose text counts.

    A box counts if its text has `min_characters` without spaces and its score is `min_score` or more. A pixel under
    several boxes counts once. A detector alone sees text in faces; what the recogniser cannot read is none.
    """
    from skimage.draw import polygon

    covered = np.zeros(shape, bool)
    for corners, text, score in readings:
        if len("".join(text.split())) >= min_characters and score >= min_score:
            x, y = np.asarray(corners, np.float64).T
            covered[polygon(y - 0.5, x - 0.5, shape)] = True  # a pixel is covered if its middle is
    return float(covered.mean())
