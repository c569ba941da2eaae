"""Geometry of one picture: what is shown of it, and the size it is scaled to. Used in the decoding child."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Box = tuple[float, float, float, float]

# Larger pictures are refused before anything is allocated: 8K is 33 million pixels.
MAX_VIDEO_PIXELS = 1 << 26
MAX_IMAGE_PIXELS = 1 << 27
MAX_ASPECT = 8


class MediaError(Exception):
    """This file cannot be decoded; the text says why. `transient` causes may pass."""

    def __init__(self, text: str, transient: bool = False) -> None:
        super().__init__(text)
        self.transient = transient


def check_size(width: int, height: int, limit: int) -> None:
    """Raise MediaError for a picture without pixels or with more than `limit` of them."""
    if width < 1 or height < 1:
        raise MediaError(f"has no picture size: {width}x{height}")
    if width * height > limit:
        raise MediaError(f"picture of {width}x{height} is too large: the limit is {limit / 1e6:.0f} million pixels")


@dataclass(frozen=True)
class View:
    """What is shown of every picture of a file, and how large.

    native: displayed (width, height) of the box, or of the whole picture. target: (width, height) after scaling.
    """

    box: Box
    native: tuple[int, int]
    target: tuple[int, int]

    @classmethod
    def of(cls, width: int, height: int, box: Box | None, size: int) -> View:
        """The view of a displayed `width` x `height` picture whose shorter side becomes `size` pixels."""
        x0, y0, x1, y1 = box or (0.0, 0.0, 1.0, 1.0)
        x0, y0, x1, y1 = max(0.0, x0), max(0.0, y0), min(1.0, x1), min(1.0, y1)
        native = round(x1 * width) - round(x0 * width), round(y1 * height) - round(y0 * height)
        if min(native) < 1:
            raise MediaError(f"crop box {box} of the source's index holds no pixel of the {width}x{height} picture")
        if max(native) > MAX_ASPECT * min(native):
            raise MediaError(f"picture of {native[0]}x{native[1]} is narrower than 1:{MAX_ASPECT}")
        scale = size / min(native)
        target = max(size, round(native[0] * scale)), max(size, round(native[1] * scale))
        return cls((x0, y0, x1, y1), native, target)

    def write(self, picture: np.ndarray, out: np.ndarray) -> None:
        """Scale an upright uint8 RGB (h, w, 3) picture into `out`, uint8 (target height, target width, 3)."""
        import cv2

        height, width = picture.shape[:2]
        x0, y0, x1, y1 = self.box
        part = picture[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)]
        # Averaging over areas has no aliasing when it shrinks; enlarged, it would repeat pixels.
        shrinks = part.shape[1] >= self.target[0] or part.shape[0] >= self.target[1]
        cv2.resize(part, self.target, dst=out, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
