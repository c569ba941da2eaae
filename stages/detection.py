"""Detected faces, and the face stage's columns from them, whatever engine found them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detection:
    """A face on one frame.

    box: x0, y0, x1, y1 in frame pixels, may reach over the edge. score: the detector's own scale, larger is surer.
    landmarks: eyes, nose, mouth corners as x, y five times, or None.
    """

    box: Box
    score: float
    landmarks: tuple[float, ...] | None = None

    def clipped(self, shape: tuple[int, int]) -> Box:
        """The part of the box that lies in a picture of `shape` (height, width)."""
        height, width = shape
        x0, y0, x1, y1 = self.box
        return (_clip(x0, width), _clip(y0, height), _clip(x1, width), _clip(y1, height))


def _clip(value: float, limit: int) -> float:
    return min(max(float(value), 0.0), float(limit))


def face_columns(found: Mapping[int, Sequence[Detection]], shape: tuple[int, int]) -> dict[str, Any]:
    """The stage's columns from what was found on each looked-at frame, by the frame's index.

    `shape` is the frames' (height, width). Every detection given counts: drop the unsure ones before. On a frame with
    several faces, the one that covers most of the picture speaks for it.
    """
    assert found
    largest = {i: max(faces, key=lambda f: _area(f.clipped(shape))) for i, faces in sorted(found.items()) if faces}
    counts = {i: len(faces) for i, faces in sorted(found.items())}
    most = max(counts, key=lambda i: counts[i])
    marked = any(face.landmarks is not None for face in largest.values())
    return {
        "face_count": counts[most],
        "face_count_frame": most,
        "face_fraction": sum(count == 1 for count in counts.values()) / len(counts),
        "face_score": median(face.score for face in largest.values()) if largest else None,
        "face_frames": list(largest),
        "frame_boxes": [list(face.clipped(shape)) for face in largest.values()],
        "frame_landmarks": [list(face.landmarks or ()) for face in largest.values()] if marked else None,
        "face_embedding": None,
        "face_similarity": None,
    }


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
