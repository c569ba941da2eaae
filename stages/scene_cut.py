"""Stage "cut": whether the scene changes inside the frame grid.

Between two frames of one shot most of the picture only moves: nearly every block of one is found again somewhere near
in the other, however bright. Across a cut it is not. So the score of a step is 1 - the median, over the textured blocks
of a frame, of the best normalised correlation with the other frame within reach. A person who dances raises it on all
steps, a cut on one: the clip's median is subtracted. A flash comes and goes: a cut must also part the frames around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from manifests.schema import fields
from stages import base
from stages.base import ClipError, Measured, Rule, Sample, Stage
from stages.frames import FrameSpec

SIDE, BLOCK, REACH = 96, 16, 28  # px; a pan of 28 / 96 of the picture in one step is still found
MIN_TEXTURE = 4.0  # standard deviation below which a block is too plain to be found again
MIN_BLOCKS = 4
CANDIDATES = 3  # steps looked at again for flashes


class BlockMatch:
    """Normalised correlation of blocks (OpenCV's TM_CCOEFF_NORMED) on the grey centre square at 96 x 96."""

    Params = base.Params

    def __init__(self, params: base.Params, spec: FrameSpec) -> None:
        pass

    def version(self) -> str:
        """OpenCV's version and the settings."""
        settings = f"{SIDE} {BLOCK} {REACH} {MIN_TEXTURE:g}"
        return f"opencv {version('opencv-python-headless')} {settings}"

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """cut_score and cut_frame of each sample; null for images."""
        return [self._one(sample) for sample in batch]

    def _one(self, sample: Sample) -> Measured:
        if sample.clip.kind == "image":
            return Measured({"cut_score": None, "cut_frame": None})
        score, frame = largest_cut(grey_squares(sample.images()))
        return Measured({"cut_score": score, "cut_frame": frame})


def grey_squares(images: np.ndarray) -> np.ndarray:
    """The centre squares of uint8 RGB (n, h, w, 3) as uint8 grey (n, SIDE, SIDE)."""
    import cv2

    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    squares = images[:, top : top + side, left : left + side]
    return np.stack(
        [cv2.cvtColor(cv2.resize(s, (SIDE, SIDE), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY) for s in squares]
    )


def largest_cut(frames: np.ndarray) -> tuple[float, int]:
    """Score of the likeliest cut among grey frames (n, SIDE, SIDE), 0..2, and the index of the first frame after it."""
    count = len(frames)
    steps = np.array([change(frames[i], frames[i + 1]) for i in range(count - 1)])
    usual = float(np.median(steps))
    best, after = 0.0, int(steps.argmax()) + 1
    for i in np.argsort(-steps, kind="stable")[:CANDIDATES].tolist():
        around = [(a, b) for a, b in ((i - 1, i + 1), (i, i + 2), (i - 1, i + 2)) if a >= 0 and b < count]
        score = min([float(steps[i]), *(change(frames[a], frames[b]) for a, b in around)]) - usual
        if score > best:
            best, after = score, i + 1
    return best, after


def change(one: np.ndarray, other: np.ndarray) -> float:
    """How little two grey frames show the same scene, 0..2: the smaller of both directions."""
    return min(_unfound(one, other), _unfound(other, one))


def _unfound(one: np.ndarray, other: np.ndarray) -> float:
    import cv2

    found = []
    for y in range(0, SIDE - BLOCK + 1, BLOCK):
        for x in range(0, SIDE - BLOCK + 1, BLOCK):
            block = one[y : y + BLOCK, x : x + BLOCK]
            if block.std() < MIN_TEXTURE:
                continue
            reach = other[max(0, y - REACH) : y + BLOCK + REACH, max(0, x - REACH) : x + BLOCK + REACH]
            correlation = cv2.matchTemplate(reach, block, cv2.TM_CCOEFF_NORMED)
            found.append(float(np.nan_to_num(correlation, nan=0.0, posinf=0.0, neginf=0.0).max()))
    return 1.0 - float(np.median(found)) if len(found) >= MIN_BLOCKS else 0.0


STAGE = Stage(
    name="cut",
    needs="frames",
    fields=fields("cut_score", "cut_frame"),
    engines={"block_match": BlockMatch},
    rules=(Rule("scene_cut", "cut_score", ">", "max_cut_score"),),
)
