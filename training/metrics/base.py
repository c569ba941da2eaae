"""What a metric is given and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Video:
    """One generated video and what was asked of the model.

    frames: uint8 RGB (N, h, w, 3), all frames of the file. fps: frames per second that the file plays at.
    reference: uint8 RGB (h, w, 3), the picture I. prompt: P. intensity: the M asked for, None where none was.
    grid_size: side in pixels of the frame grid that M refers to.
    """

    frames: np.ndarray
    fps: float
    reference: np.ndarray
    prompt: str
    intensity: float | None
    grid_size: int = 512


@dataclass(frozen=True)
class Score:
    """value: the metric of one video. details: what it was made of, for whoever looks closer."""

    value: float
    details: Mapping[str, Any]


class Metric(Protocol):
    """One number a video.

    name: as on the command line and in the tables. title: as the paper's Table 1 heads it. definition: what is
    computed, on which frames, at which resolution, by which model. weights: names in stages.weights.WEIGHTS.
    packages: distributions whose version the value depends on.
    """

    name: str
    title: str
    definition: str
    weights: tuple[str, ...]
    packages: tuple[str, ...]

    def setup(self, device: str) -> None:
        """Load the model. Raises ValueError when a model file is missing or is not the right one."""
        ...

    def measure(self, video: Video) -> Score:
        """Raises ValueError when this video cannot be scored, saying why."""
        ...
