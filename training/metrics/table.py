"""All metrics, and the paper's numbers."""

from __future__ import annotations

from collections.abc import Callable

from training.metrics.base import Metric
from training.metrics.clip_scores import ClipI, ClipT
from training.metrics.control import Control
from training.metrics.dover import DoverScore
from training.metrics.dynamic_degree import DynamicDegree
from training.metrics.face_similarity import FaceSimilarity
from training.metrics.smoothness import MotionSmoothness

# In the order of the paper's Table 1; control is ours.
METRICS: dict[str, Callable[[], Metric]] = {
    "dover": DoverScore,
    "motion_smoothness": MotionSmoothness,
    "dynamic_degree": DynamicDegree,
    "clip_i": ClipI,
    "clip_t": ClipT,
    "face_similarity": FaceSimilarity,
    "control": Control,
}

TABLE_1: dict[str, tuple[float, ...]] = {
    # method: dover, motion_smoothness, dynamic_degree, clip_i, clip_t, face_similarity (arXiv 2411.18281, Table 1)
    "IPA-PlusFace": (0.797, 0.985, 0.325, 0.587, 0.218, 0.480),
    "IPA-FaceID-Portrait": (0.849, 0.984, 0.191, 0.545, 0.223, 0.531),
    "IPA-FaceID-PlusV2": (0.813, 0.987, 0.085, 0.575, 0.217, 0.617),
    "ID-Animator": (0.857, 0.979, 0.433, 0.607, 0.204, 0.546),
    "MotionCharacter": (0.869, 0.998, 0.449, 0.633, 0.227, 0.609),
}
