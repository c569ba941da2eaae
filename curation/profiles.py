"""Profiles: a named choice of engines, and the thresholds that fit each engine."""

from __future__ import annotations

import math

PROFILES: dict[str, dict[str, str]] = {
    "embedded": {
        "header": "container",
        "decode": "decord",
        "cut": "block_match",
        "hash": "dct",
        "quality": "blur",
        "text": "rapidocr",
        "face": "dlib",
        "crop": "square",
        "embedding": "none",
        "motion": "dis",
        "caption": "kinematic",
    },
    "paper": {
        "header": "container",
        "decode": "decord",
        "cut": "block_match",
        "hash": "dct",
        "quality": "clip_iqa",
        "text": "easyocr",
        "face": "insightface",
        "crop": "square",
        "embedding": "open_clip",
        "motion": "raft",
        "caption": "minigpt4",
    },
}

# Thresholds that hold whatever the engines are. min_duration_s is the span of the frame grid unless it is given.
COMMON_THRESHOLDS: dict[str, float] = {
    "min_side": 512,
    # 58 windows of real clips without a cut have 0.077 and less, 156 splices of two of them 0.111 and more
    "max_cut_score": 0.095,
    "max_faces": 1,
    "min_face_similarity": 0.2,  # ArcFace cosine; our choice, not calibrated
    "min_face_in_crop": 0.9,
    "min_motion_intensity": 0.0,
    "max_camera_motion": math.inf,
    # share of equal bits of frame_hash. Of ten real clips, copies (encoded again, scaled, 2 % cropped, mirrored,
    # brightened, trimmed by 3 frames) had 0.87 and more, but for one whose cut moved the frames: 0.81; other takes of
    # one person before one ground had 0.78 and less
    "max_duplicate_similarity": 0.85,
}

# A dlib score is not a SCRFD score: thresholds on a score belong to the engine that gives it.
ENGINE_THRESHOLDS: dict[tuple[str, str], dict[str, float]] = {
    # H.264 frames of real clips: clean ones have 0.326 and more, 3 px blurred ones 0.304 and less
    ("quality", "blur"): {"min_quality": 0.31},
    # 215 clean frames of real clips have exactly 0, lettering on clothes up to 0.015; a line of text 18 px high covers
    # about 0.02, one of 14 px 0.012: lower it where small captions must go and lettering may
    ("text", "rapidocr"): {"max_text_area": 0.02},
    ("face", "dlib"): {"min_face_score": 0.5, "min_face_fraction": 0.75},
    # the paper prints none of these: 0.5 is where CLIP finds the good prompt and the bad one equally likely
    ("quality", "clip_iqa"): {"min_quality": 0.5},
    ("text", "easyocr"): {"max_text_area": 0.02},
    # SCRFD's median score on thirteen real portrait clips was 0.56 to 0.88
    ("face", "insightface"): {"min_face_score": 0.5, "min_face_fraction": 0.75},
}
