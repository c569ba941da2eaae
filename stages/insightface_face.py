"""Faces by insightface (SCRFD detector, ArcFace embedding), the paper's engine."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from stages import base, weights
from stages.base import ClipError, Measured, Sample
from stages.detection import Detection, face_columns
from stages.frames import FrameSpec

log = logging.getLogger(__name__)


class InsightFaceParams(base.Params):
    """frames: how many are looked at, evenly spread; null for all. size: side of the square that SCRFD sees a frame
    in; detectors of a fixed size keep theirs. recogniser: null for a detector alone, which gives no embedding."""

    detector: Literal["det_10g", "scrfd_2.5g_kps", "scrfd_500m_kps"] = "det_10g"
    recogniser: Literal["w600k_r50"] | None = "w600k_r50"
    frames: int | None = Field(None, ge=1)
    size: int = Field(640, ge=32, multiple_of=32)
    min_score: float = Field(0.5, ge=0, le=1)


class InsightFace:
    """insightface's model zoo on onnxruntime, with CUDA where the device is one and the runtime has it."""

    Params: type[base.Params] = InsightFaceParams

    def __init__(self, params: InsightFaceParams, spec: FrameSpec) -> None:
        self.params = params
        self.detector: Any = None
        self.recogniser: Any = None

    def weights(self) -> tuple[str, ...]:
        """The model files that it needs."""
        return tuple(name for name in (self.params.detector, self.params.recogniser) if name is not None)

    def version(self) -> str:
        """Versions of insightface and onnxruntime, and the hashes of the weights."""
        runtimes = {d.name for d in distributions()} & {"onnxruntime", "onnxruntime-gpu"}  # two builds of one library
        return weights.version(self.weights(), "insightface", *(sorted(runtimes) or ["onnxruntime"]))

    def setup(self, device: str) -> None:
        """Loads the detector and, where there is one, the recogniser."""
        found = weights.require(self.weights())
        self.detector = _load(found[self.params.detector], device)
        self.detector.prepare(0, input_size=(self.params.size, self.params.size), det_thresh=self.params.min_score)
        if self.params.recogniser is not None:
            self.recogniser = _load(found[self.params.recogniser], device)

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """The columns of each sample; the embeddings of all its frames are made in one batch."""
        return [self._one(sample) for sample in batch]

    def _one(self, sample: Sample) -> Measured:
        images = sample.images()
        found = {i: self.detect(images[i]) for i in sample.spread(self.params.frames or len(images))}
        columns = face_columns(found, images.shape[1:3])
        if self.recogniser is not None and columns["face_frames"]:
            frames = columns["face_frames"]
            vectors = self.embed([images[i] for i in frames], np.array(columns["frame_landmarks"]).reshape(-1, 5, 2))
            best = int(np.argmax([max(face.score for face in found[i]) for i in frames]))
            columns["face_embedding"] = vectors[best].tolist()
            columns["face_similarity"] = float((vectors @ vectors[best]).min())
        return Measured(columns)

    def detect(self, image: np.ndarray) -> list[Detection]:
        """The faces on a uint8 RGB image (h, w, 3)."""
        boxes, landmarks = self.detector.detect(np.ascontiguousarray(image[..., ::-1]))
        assert landmarks is not None  # all detectors of the table have them
        return [
            Detection((x0, y0, x1, y1), score, tuple(points.ravel().tolist()))
            for (x0, y0, x1, y1, score), points in zip(boxes.tolist(), landmarks, strict=True)
        ]

    def embed(self, images: Sequence[np.ndarray], landmarks: np.ndarray) -> np.ndarray:
        """Unit ArcFace embeddings (n, width) of the faces at landmarks (n, 5, 2) of n uint8 RGB images."""
        from insightface.utils.face_align import norm_crop

        side = self.recogniser.input_size[0]
        aligned = [
            norm_crop(np.ascontiguousarray(image[..., ::-1]), points.astype(np.float32), side)
            for image, points in zip(images, landmarks, strict=True)
        ]
        vectors = self.recogniser.get_feat(aligned)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _load(path: Path, device: str) -> Any:
    """An insightface model on `device`."""
    import onnxruntime
    from insightface.model_zoo import get_model

    providers: list[Any] = ["CPUExecutionProvider"]
    if device.startswith("cuda") and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        index = int(device.partition(":")[2] or 0)
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": index}))
    options = onnxruntime.SessionOptions()
    # onnxruntime takes every core unless told; Ray tells its workers their share by this variable
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", 0))
    model = get_model(str(path), providers=providers, sess_options=options)
    if device.startswith("cuda") and "CUDAExecutionProvider" not in model.session.get_providers():
        log.warning("faces run on the CPU: onnxruntime finds no CUDA; onnxruntime-gpu in its place does")
    return model
