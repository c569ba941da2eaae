"""Motion: the intensity M, the camera's share, and how the face moves, from optical flow on the frame grid."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Literal

import numpy as np

from flows.camera import camera_motion, camera_similarities
from flows.dis import PRESETS, dis_flow
from flows.intensity import magnitude, motion_intensity
from flows.kinematics import COLUMNS, boxes_per_frame, face_kinematics
from flows.maps import LATENT_STRIDE, stored_maps
from manifests.schema import fields
from stages import base
from stages.base import ClipError, Measured, Rule, Sample, Stage
from stages.frames import FrameSpec

# Raise it when the way from flow to columns changes.
COLUMNS_VERSION = 1


def still_motion(spec: FrameSpec) -> Measured:
    """What is true of an image: no motion, by definition."""
    pairs, side = spec.count - 1, spec.size // LATENT_STRIDE
    return Measured(
        {"motion_intensity": 0.0, "camera_motion": 0.0, "face_motion": [[0.0] * len(COLUMNS)] * pairs},
        {"magnitude": np.zeros((pairs, side, side), np.uint8), "maximum": np.zeros(pairs, np.float32)},
    )


def motion_from_flow(flow: np.ndarray, images: np.ndarray, columns: Any) -> Measured:
    """The stage's columns and the stored flow, whatever engine gave the flow.

    flow: float32 (N-1, size, size, 2), px. images: the frame grid, uint8 RGB (N, size, size, 3). columns: face_frames
    and face_boxes, empty or null where no face is known: then face_motion is null. camera_motion is null where the
    ground does not show it.
    """
    count, height, width, _ = images.shape
    magnitudes = magnitude(flow)
    frames, known = columns["face_frames"], columns["face_boxes"]
    boxes = boxes_per_frame(frames, known, count) if frames and known else None
    camera = camera_similarities(flow, images, boxes)
    kinematics = None if boxes is None else face_kinematics(flow, boxes, camera)
    maps, maxima = stored_maps(magnitudes)
    return Measured(
        {
            "motion_intensity": motion_intensity(magnitudes),
            "camera_motion": camera_motion(camera, height, width),
            "face_motion": None if kinematics is None else kinematics.tolist(),
        },
        {"magnitude": maps, "maximum": maxima},
    )


class DisParams(base.Params):
    """preset: trades time for accuracy, see flows/dis.py."""

    preset: Literal["ultrafast", "fast", "medium"] = "medium"


class Dis:
    """OpenCV's DIS optical flow, on one CPU thread."""

    Params: type[base.Params] = DisParams

    def __init__(self, params: DisParams, spec: FrameSpec) -> None:
        self.settings = PRESETS[params.preset]
        self.spec = spec

    def version(self) -> str:
        """OpenCV's version and all settings."""
        return f"opencv {version('opencv-python-headless')} {self.settings} columns {COLUMNS_VERSION}"

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """One result per sample, in order."""
        return [self._measure(sample) for sample in batch]

    def _measure(self, sample: Sample) -> Measured:
        if sample.clip.kind == "image":
            return still_motion(self.spec)
        images = sample.grid()
        return motion_from_flow(dis_flow(images, self.settings), images, sample.columns)


STAGE = Stage(
    name="motion",
    needs="grid",
    fields=fields("motion_intensity", "camera_motion", "face_motion", "flow_path"),
    engines={"dis": Dis},
    reads=("face", "crop"),
    rules=(
        Rule("too_still", "motion_intensity", "<", "min_motion_intensity"),
        Rule("camera_motion", "camera_motion", ">", "max_camera_motion"),
    ),
)
