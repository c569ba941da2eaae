"""Stage "hash": a perceptual hash of the frames, by which copies of a clip are found.

After the DCT hash of Zauner 2010 ("Implementation and benchmarking of perceptual image hash functions"), but over time:
frames of two takes of one person against one ground hash alike, what moves in them does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from manifests.schema import HASH_WORDS, fields
from stages import base
from stages.base import ClipError, Measured, Sample, Stage
from stages.frames import FrameSpec

SIDE = 32  # of the picture that is transformed, px
PARTS = HASH_WORDS - 1  # of the clip in time
STILLNESS = 0.02  # how far the change must exceed the picture itself to decide a bit


def _coefficients() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (HASH_WORDS, 64) of DCT coefficients, lowest frequencies first, the mean left out.

    The first 32 of each word have an even column, the others an odd one: those change sign in the mirror.
    """
    places = sorted(((y, x) for y in range(SIDE) for x in range(SIDE) if y + x), key=lambda p: (sum(p), p))
    words = []
    for word in range(HASH_WORDS):
        halves = [[p for p in places if p[1] % 2 == odd][32 * word : 32 * word + 32] for odd in (0, 1)]
        words.append(halves[0] + halves[1])
    chosen = np.array(words)
    return chosen[..., 0], chosen[..., 1]


ROWS, COLUMNS = _coefficients()
# The mirrored clip has the hash XOR this, word by word.
MIRROR = np.uint64(0xFFFFFFFF00000000)


def perceptual_hash(images: np.ndarray) -> np.ndarray:
    """uint64 (HASH_WORDS,): the hash of uint8 RGB frames (n, h, w, 3).

    Word 0 has the signs of the 64 lowest DCT coefficients of the mean frame. Word i has those of the mean of the i-th
    part of the clip less the mean frame: what moved. Where hardly anything did, as in a still, a bit is decided by the
    mean frame's next 64 coefficients, weighted with STILLNESS.
    """
    import cv2

    gray = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images)
    small = [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in gray]
    frames = np.stack(small).astype(np.float32)
    mean = frames.mean(axis=0)
    look = cv2.dct(mean)[ROWS, COLUMNS]
    signs = [look[0] > 0]
    for word, part in enumerate(np.array_split(frames, PARTS), start=1):
        change = cv2.dct(part.mean(axis=0) - mean)[ROWS[0], COLUMNS[0]]
        signs.append(change + STILLNESS * look[word] > 0)
    return np.packbits(signs, axis=1, bitorder="little").view("<u8")[:, 0]


class DctHash:
    """The DCT hash of the whole frames, so that it does not depend on where the face was found."""

    Params: type[base.Params] = base.Params

    def __init__(self, params: base.Params, spec: FrameSpec) -> None: ...

    def version(self) -> str:
        """OpenCV's version and our own."""
        return f"1 opencv {version('opencv-python-headless')}"

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """frame_hash of each sample."""
        return [Measured({"frame_hash": perceptual_hash(sample.images()).tolist()}) for sample in batch]


STAGE = Stage(name="hash", needs="frames", fields=fields("frame_hash"), engines={"dct": DctHash})
