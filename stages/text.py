"""Stage "text": how much of the picture burnt-in text covers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from pydantic import Field

from manifests.schema import fields
from stages import base
from stages.base import ClipError, Measured, Rule, Sample, Stage
from stages.easyocr_text import EasyOcr
from stages.frames import FrameSpec
from stages.text_area import Reading, text_area


class RapidOcrParams(base.Params):
    """frames: how many to look at. detect_side: the detector sees frames of this shorter side, pixels.

    Its time grows with the square of `detect_side`; the recogniser always reads the frame itself.
    """

    frames: int = Field(3, ge=1)
    detect_side: int = Field(320, ge=64, le=2048, multiple_of=32)
    min_characters: int = Field(2, ge=1)
    min_score: float = Field(0.6, ge=0, le=1)


class RapidOcr:
    """PP-OCR's small detector and recogniser, which RapidOCR's wheel carries, on one thread of the CPU."""

    Params: type[base.Params] = RapidOcrParams

    def __init__(self, params: RapidOcrParams, spec: FrameSpec) -> None:
        self.params = params
        self.ocr: Any = None

    def version(self) -> str:
        """Versions of rapidocr (its wheel holds the models), onnxruntime and OpenCV."""
        return " ".join(f"{name} {version(name)}" for name in ("rapidocr", "onnxruntime", "opencv-python-headless"))

    def setup(self, device: str) -> None:
        """Loads both models."""
        from rapidocr import RapidOCR

        settings = {
            "Global.log_level": "critical",
            "Global.text_score": 0.0,
            "Global.use_cls": False,  # overlays are upright
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            "Det.limit_side_len": self.params.detect_side,
            "Rec.rec_batch_num": 1,  # in a batch it would pad to the widest box
        }
        self.ocr = RapidOCR(params=settings)
        nothing = np.zeros((64, 64, 3), np.uint8)
        self.ocr(nothing)
        self.ocr(nothing, use_det=False)

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """text_area of each sample, of the looked-at frame that has most, and which one that is."""
        return [self._one(sample) for sample in batch]

    def _one(self, sample: Sample) -> Measured:
        images = sample.images()
        params = self.params
        areas = {
            i: text_area(self.read(images[i]), images.shape[1:3], params.min_characters, params.min_score)
            for i in sample.spread(params.frames)
        }
        most = max(areas, key=lambda i: areas[i])
        return Measured({"text_area": areas[most], "text_frame": most})

    def read(self, image: np.ndarray) -> list[Reading]:
        """What is written on a uint8 RGB image (h, w, 3)."""
        import cv2

        bgr = np.ascontiguousarray(image[..., ::-1])
        height, width = bgr.shape[:2]
        scale = min(1.0, self.params.detect_side / min(height, width))
        small = cv2.resize(bgr, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
        found = self.ocr(small, use_det=True, use_rec=False, use_cls=False).boxes
        if found is None:
            return []
        boxes = found.astype(np.float32) * np.array([width / small.shape[1], height / small.shape[0]], np.float32)
        read = self.ocr.recognize_txt(self.ocr.crop_text_regions(bgr, boxes))
        return [(box, text, float(score)) for box, text, score in zip(boxes, read.txts, read.scores, strict=True)]


STAGE = Stage(
    name="text",
    needs="frames",
    fields=fields("text_area", "text_frame"),
    engines={"rapidocr": RapidOcr, "easyocr": EasyOcr},
    rules=(Rule("text_overlay", "text_area", ">", "max_text_area", frame="text_frame"),),
)
