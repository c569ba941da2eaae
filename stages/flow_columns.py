"""The motion stage's columns and stored flow, whatever engine the flow is from."""

from __future__ import annotations

from typing import Any

import numpy as np

from flows.camera import camera_motion, camera_similarities
from flows.intensity import magnitude, motion_intensity
from flows.kinematics import COLUMNS, boxes_per_frame, face_kinematics
from flows.maps import LATENT_STRIDE, stored_maps
from stages.base import Measured
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
