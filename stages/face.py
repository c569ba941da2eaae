"""Stage "face": how many faces there are, where, and how sure the detector is."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from pydantic import Field

from manifests.schema import fields
from stages import base
from stages.base import ClipError, Measured, Rule, Sample, Stage
from stages.detection import Detection, face_columns
from stages.frames import FrameSpec
from stages.insightface_face import InsightFace


class DlibParams(base.Params):
    """frames: how many to look at. upsample: doublings of the frame; the smallest face found is 80 px over that.

    min_score: detections with less are no faces; real ones have 0.6 and more, mostly 1 to 3.
    """

    frames: int = Field(4, ge=1)
    upsample: int = Field(1, ge=0, le=2)
    min_score: float = Field(0.3, ge=0)


class Dlib:
    """dlib's frontal face detector (HOG features and linear SVMs), which is compiled into the library."""

    Params: type[base.Params] = DlibParams

    def __init__(self, params: DlibParams, spec: FrameSpec) -> None:
        self.params = params
        self.detector: Any = None

    def version(self) -> str:
        """Version of dlib, which holds the model."""
        return f"dlib-bin {version('dlib-bin')}"

    def setup(self, device: str) -> None:
        """Unpacks the detector."""
        import dlib

        self.detector = dlib.get_frontal_face_detector()

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """The columns of each sample; no landmarks, no embedding."""
        return [self._one(sample) for sample in batch]

    def _one(self, sample: Sample) -> Measured:
        images = sample.images()
        found = {i: self.detect(images[i]) for i in sample.spread(self.params.frames)}
        return Measured(face_columns(found, images.shape[1:3]))

    def detect(self, image: np.ndarray) -> list[Detection]:
        """The faces on a uint8 RGB image (h, w, 3)."""
        boxes, scores, _ = self.detector.run(image, self.params.upsample, self.params.min_score)
        return [
            Detection((box.left(), box.top(), box.right() + 1, box.bottom() + 1), score)  # dlib's edges are inside
            for box, score in zip(boxes, scores, strict=True)
        ]


STAGE = Stage(
    name="face",
    needs="frames",
    fields=fields(
        "face_count",
        "face_count_frame",
        "face_fraction",
        "face_score",
        "face_frames",
        "frame_boxes",
        "frame_landmarks",
        "face_embedding",
        "face_similarity",
    ),
    engines={"dlib": Dlib, "insightface": InsightFace},
    rules=(
        Rule("no_face", "face_count", "<", 1.0, frame="face_count_frame"),
        Rule("multiple_faces", "face_count", ">", "max_faces", frame="face_count_frame"),
        Rule("face_lost", "face_fraction", "<", "min_face_fraction"),
        Rule("low_face_confidence", "face_score", "<", "min_face_score"),
        Rule("different_faces", "face_similarity", "<", "min_face_similarity"),
    ),
)
