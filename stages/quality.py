"""Stage "quality": how good the picture is, on one frame."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from pydantic import Field

from manifests.schema import fields
from stages import base
from stages.base import ClipError, Measured, Rule, Sample, Stage
from stages.clip_iqa import ClipIqa
from stages.frames import FrameSpec


class BlurParams(base.Params):
    """position: which frame, from 0 (the first) to 1 (the last). window: blur_effect's `h_size`, pixels."""

    position: float = Field(0.5, ge=0, le=1)
    window: int = Field(11, ge=3, le=101)


class Blur:
    """Sharpness: 1 - perceptual blur of Crete et al. 2007 (`skimage.measure.blur_effect`), 0..1, larger is sharper.

    It looks at the centre square of the frame: there a blurred portrait and a soft one lie further apart than on the
    whole frame, whose background is often out of focus. It says nothing of noise, exposure or taste.
    """

    Params: type[base.Params] = BlurParams

    def __init__(self, params: BlurParams, spec: FrameSpec) -> None:
        self.params = params

    def version(self) -> str:
        """Versions of scikit-image and OpenCV."""
        return " ".join(f"{name} {version(name)}" for name in ("scikit-image", "opencv-python-headless"))

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """quality_score and quality_frame of each sample."""
        return [self._one(sample.images()) for sample in batch]

    def _one(self, images: np.ndarray) -> Measured:
        frame = round(self.params.position * (len(images) - 1))
        return Measured({"quality_score": sharpness(images[frame], self.params.window), "quality_frame": frame})


def sharpness(image: np.ndarray, window: int) -> float:
    """1 - blur of the centre square of a uint8 RGB image (h, w, 3), 0..1. A picture of one colour has 0."""
    import cv2
    from skimage.measure import blur_effect

    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    gray = cv2.cvtColor(np.ascontiguousarray(image[top : top + side, left : left + side]), cv2.COLOR_RGB2GRAY)
    return 1.0 - float(blur_effect(gray, h_size=window))


STAGE = Stage(
    name="quality",
    needs="frames",
    fields=fields("quality_score", "quality_frame"),
    engines={"blur": Blur, "clip_iqa": ClipIqa},
    rules=(Rule("quality", "quality_score", "<", "min_quality", frame="quality_frame"),),
)
