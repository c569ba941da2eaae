"""Text overlays by EasyOCR (CRAFT detector, CRNN recogniser), the paper's engine."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from stages import base, weights
from stages.base import ClipError, Measured, Sample
from stages.frames import FrameSpec
from stages.text_area import Reading, text_area

# the recogniser of each script, as EasyOCR's Reader chooses it
RECOGNISERS = {"en": "english_g2", "latin": "latin_g2", "ch_sim": "zh_sim_g2"}
_LANGUAGES = {"en": ["en"], "latin": ["en", "fr", "de", "es"], "ch_sim": ["ch_sim", "en"]}


class EasyOcrParams(base.Params):
    """frames: how many to look at. script: which letters the recogniser knows; en is the smallest.

    detect_batch: frames that go through the detector together; each takes about 0.5 GB there.
    """

    operational: ClassVar[frozenset[str]] = frozenset({"detect_batch"})

    frames: int = Field(3, ge=1)
    script: Literal["en", "latin", "ch_sim"] = "en"
    min_characters: int = Field(2, ge=1)
    min_score: float = Field(0.6, ge=0, le=1)
    detect_batch: int = Field(24, ge=1)


class EasyOcr:
    """EasyOCR with its own defaults, unquantised, its networks loaded from the files of the weights table."""

    Params: type[base.Params] = EasyOcrParams

    def __init__(self, params: EasyOcrParams, spec: FrameSpec) -> None:
        self.params = params
        self.reader: Any = None

    def weights(self) -> tuple[str, ...]:
        """The model files that it needs."""
        return ("craft_mlt_25k", RECOGNISERS[self.params.script])

    def version(self) -> str:
        """Versions of easyocr, torch and opencv, and the hashes of the weights."""
        return weights.version(self.weights(), "easyocr", "torch", "opencv-python-headless")

    def setup(self, device: str) -> None:
        """Builds EasyOCR's reader without its downloads and gives it the two networks."""
        found = weights.require(self.weights())
        import torch
        from easyocr import Reader
        from easyocr.craft import CRAFT
        from easyocr.detection import get_textbox
        from easyocr.model.vgg_model import Model
        from easyocr.utils import CTCLabelConverter

        detector, recogniser = (weights.load_state_dict(path) for path in found.values())
        with tempfile.TemporaryDirectory() as folder:
            reader = Reader(
                _LANGUAGES[self.params.script],
                gpu=False if device == "cpu" else device,
                model_storage_directory=folder,
                user_network_directory=folder,
                download_enabled=False,
                detector=False,
                recognizer=False,
                verbose=False,
            )
            sys.path.remove(folder)  # where the reader would look for networks of one's own
        reader.get_textbox = get_textbox
        reader.detector = CRAFT()
        reader.detector.load_state_dict(detector)
        reader.converter = CTCLabelConverter(reader.character, {}, {})
        reader.recognizer = Model(1, 256, 256, len(reader.converter.character))
        reader.recognizer.load_state_dict(recogniser)
        for network in (reader.detector, reader.recognizer):
            network.eval().requires_grad_(False).to(device)
        reader.detector.to(memory_format=torch.channels_last)
        self.reader = reader

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """text_area of each sample, of the looked-at frame that has most, and which one that is."""
        looked_at = [sample.spread(self.params.frames) for sample in batch]
        chosen = [sample.images()[frames] for sample, frames in zip(batch, looked_at, strict=True)]
        areas: list[list[float]] = [[] for _ in batch]
        for shape in dict.fromkeys(images.shape[1:] for images in chosen):
            owners = [i for i, images in enumerate(chosen) if images.shape[1:] == shape for _ in images]
            same = np.concatenate([images for images in chosen if images.shape[1:] == shape])
            for i, readings in zip(owners, self.read(same), strict=True):
                areas[i].append(text_area(readings, shape[:2], self.params.min_characters, self.params.min_score))
        return [
            Measured({"text_area": max(found), "text_frame": frames[found.index(max(found))]})
            for frames, found in zip(looked_at, areas, strict=True)
        ]

    def read(self, images: np.ndarray) -> list[list[Reading]]:
        """What is written on each of several images of one size, uint8 RGB (b, h, w, 3)."""
        import cv2

        found = []
        for start in range(0, len(images), self.params.detect_batch):
            chunk = np.ascontiguousarray(images[start : start + self.params.detect_batch])
            # the two halves of Reader.readtext on a file: the detector takes all frames in one pass, the recogniser
            # box by box, since in a batch it would pad to the widest box and see other pixels
            for image, level, tilted in zip(chunk, *self.reader.detect(chunk, reformat=False), strict=True):
                grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
                result = self.reader.recognize(grey, level, tilted, reformat=False)
                found.append([(np.array(box, np.float64), text, float(score)) for box, text, score in result])
        return found
