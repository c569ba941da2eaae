"""Dynamic Degree of VBench (Huang et al. 2024, arXiv 2311.17982): whether a video moves, by RAFT."""

from __future__ import annotations

import numpy as np

from flows.intensity import magnitude
from flows.raft import MIN_SIDE, Raft
from stages import weights
from training.metrics.base import Score, Video

TARGET_FPS = 8
TOP_SHARE = 0.05
UPDATES = 20


class DynamicDegree:
    """1 for a video that moves, 0 for one that does not; over many videos, the share that moves."""

    name = "dynamic_degree"
    title = "Dynamic Degree"
    definition = (
        "VBench: the frames at about 8 per second (every round(fps / 8)-th); RAFT flow, 20 updates, between neighbours "
        "at native resolution, padded by its border to multiples of 8; a pair moves when the mean of its largest 5 % "
        "of magnitudes exceeds 6 min(H, W) / 256 px; 1 when at least round(n / 4) pairs of n frames move. The value "
        "depends on the rate that the file was saved at. Later versions of VBench raise the threshold by 8 / fps for "
        "files below 8 fps; this is the rule of the time of the paper. Model: torchvision's raft_large with C_T_V1, "
        "the weights of RAFT's authors (FlyingChairs, FlyingThings3D)"
    )
    weights: tuple[str, ...] = ("raft_large_things",)
    packages: tuple[str, ...] = ("torch", "torchvision")

    def setup(self, device: str) -> None:
        """Loads RAFT."""
        (path,) = weights.require(self.weights).values()
        self.raft = Raft(weights.load_state_dict(path), "raft_large", device, updates=UPDATES, max_pairs=4)

    def measure(self, video: Video) -> Score:
        """details: `largest`, mean of each pair's largest 5 %, px; `threshold`, px; `needed`, pairs that must move."""
        frames = video.frames[:: frame_step(video.fps)]
        if len(frames) < 2:
            raise ValueError(f"has {len(frames)} frame at {TARGET_FPS} per second, two are needed for a flow")
        height, width = frames.shape[1:3]
        padded, (top, left) = pad(frames)
        (flow,) = self.raft.flows([padded])
        largest = [mean_of_largest(m) for m in magnitude(flow[:, top : top + height, left : left + width])]
        return decide(largest, threshold(height, width))


def frame_step(fps: float) -> int:
    """Every how many-th frame is looked at."""
    return max(1, round(fps / TARGET_FPS))


def threshold(height: int, width: int) -> float:
    """Pixels that the largest flow of a moving pair exceeds."""
    return 6.0 * min(height, width) / 256.0


def mean_of_largest(magnitudes: np.ndarray) -> float:
    """Mean of the largest 5 % of magnitudes (h, w), px; of the largest alone where 5 % are less than one pixel."""
    count = max(1, int(magnitudes.size * TOP_SHARE))
    return float(np.sort(magnitudes, axis=None)[-count:].mean())


def decide(largest: list[float], limit: float) -> Score:
    """The score of a video from its pairs' largest magnitudes."""
    needed = max(1, round(4 * (len(largest) + 1) / 16))
    moving = sum(value > limit for value in largest)
    return Score(float(moving >= needed), {"largest": largest, "threshold": limit, "moving": moving, "needed": needed})


def pad(frames: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Frames (n, h, w, 3) with their border repeated on both sides up to multiples of 8, at least RAFT's smallest side,
    and where the frame lies in them (top, left)."""
    height, width = frames.shape[1:3]
    tall, wide = (max(MIN_SIDE, -(-side // 8) * 8) for side in (height, width))
    top, left = (tall - height) // 2, (wide - width) // 2
    margins = ((0, 0), (top, tall - height - top), (left, wide - width - left), (0, 0))
    return np.pad(frames, margins, mode="edge"), (top, left)
