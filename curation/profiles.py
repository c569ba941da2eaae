"""Profiles: a named choice of engines, and the thresholds that fit each engine."""

from __future__ import annotations

import math

PROFILES: dict[str, dict[str, str]] = {
    "embedded": {
        "header": "container",
        "decode": "decord",
        "quality": "blur",
        "text": "rapidocr",
        "face": "dlib",
        "crop": "square",
        "motion": "dis",
        "caption": "kinematic",
    },
}

# Thresholds that hold whatever the engines are. min_duration_s is the span of the frame grid unless it is given.
COMMON_THRESHOLDS: dict[str, float] = {
    "min_side": 512,
    "max_faces": 1,
    "min_face_similarity": 0.2,  # ArcFace: two people are mostly below it, one in two poses above
    "min_face_in_crop": 0.9,
    "min_motion_intensity": 0.0,
    "max_camera_motion": math.inf,
}

# A dlib score is not a SCRFD score: thresholds on a score belong to the engine that gives it.
ENGINE_THRESHOLDS: dict[tuple[str, str], dict[str, float]] = {
    ("quality", "blur"): {"min_quality": 0.3},
    ("text", "rapidocr"): {"max_text_area": 0.02},
    ("face", "dlib"): {"min_face_score": 0.5, "min_face_fraction": 0.75},
}
