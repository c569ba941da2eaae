"""How much of a picture text covers, whatever engine read it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

# corners (4, 2) as x, y in frame pixels; what was read there; the recogniser's score, 0..1
Reading = tuple[np.ndarray, str, float]

# A taller line is no caption: of two round faces side by side, PP-OCR reads "88" over the whole frame, score 0.86.
TALLEST_LINE = 0.3  # of the frame's shorter side


def text_area(readings: Iterable[Reading], shape: tuple[int, int], min_characters: int, min_score: float) -> float:
    """Share (0..1) of a frame of `shape` (height, width) that lies under boxes whose text counts.

    A box counts if its text has `min_characters` without spaces, its score is `min_score` or more, and it is no taller
    than `TALLEST_LINE`. A pixel under several boxes counts once. A detector alone sees text in faces; what the
    recogniser cannot read is none.
    """
    from skimage.draw import polygon

    covered = np.zeros(shape, bool)
    for corners, text, score in readings:
        box = np.asarray(corners, np.float64)
        height = np.linalg.norm(box[3] - box[0])  # corners run clockwise from the line's upper left
        if len("".join(text.split())) >= min_characters and score >= min_score and height <= TALLEST_LINE * min(shape):
            x, y = box.T
            covered[polygon(y - 0.5, x - 0.5, shape)] = True  # a pixel is covered if its middle is
    return float(covered.mean())
