"""Where the face is, on which frame; and the face cut out on plain ground. Arrays only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

LEFT_RIGHT = [1, 0, 2, 4, 3]  # a flip swaps the eyes, and the mouth corners


@dataclass(frozen=True)
class Faces:
    """The face of a clip on the looked-at frames, in pixels of the square frame.

    frames: int (k,), ascending grid indices. boxes: float (k, 4), x0, y0, x1, y1. landmarks: float (k, 5, 2), or None
    where the detector gives none. size: side of the frame that the coordinates refer to.
    """

    frames: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray | None
    size: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Faces | None:
        """From a manifest row; None when no face was found on any frame."""
        if not row["face_frames"]:
            return None
        landmarks = row["face_landmarks"]
        if landmarks is not None and any(points is None for points in landmarks):
            landmarks = None
        return cls(
            np.array(row["face_frames"]),
            np.array(row["face_boxes"], dtype=np.float64),
            None if landmarks is None else np.array(landmarks, dtype=np.float64).reshape(-1, 5, 2),
            row["grid_size"],
        )

    def at(self, position: float) -> tuple[np.ndarray, np.ndarray | None]:
        """Box (4,) and landmarks (5, 2) at a grid position between frames, linear in between, held at the ends."""
        return _between(position, self.frames, self.boxes), (
            None if self.landmarks is None else _between(position, self.frames, self.landmarks)
        )

    def seen(self, zoom: float, flip: bool, size: int) -> Faces:
        """The faces after `view` with the same arguments and a resize to `size`."""
        half = self.size / 2
        scale = size / self.size

        def move(points: np.ndarray) -> np.ndarray:
            moved = (points - half) * zoom + half
            if flip:
                moved[..., 0] = self.size - moved[..., 0]
            return moved * scale

        corners = move(self.boxes.reshape(-1, 2, 2))
        boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
        landmarks = None
        if self.landmarks is not None:
            landmarks = move(self.landmarks)
            landmarks = landmarks[:, LEFT_RIGHT] if flip else landmarks
        return Faces(self.frames, boxes, landmarks, size)


def _between(position: float, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    right = int(np.clip(np.searchsorted(at, position), 1, len(at) - 1)) if len(at) > 1 else 0
    left = max(right - 1, 0)
    span = at[right] - at[left]
    share = float(np.clip((position - at[left]) / span, 0.0, 1.0)) if span else 0.0
    return values[left] * (1 - share) + values[right] * share


def view(frames: np.ndarray, zoom: float, flip: bool) -> np.ndarray:
    """Resize by `zoom` >= 1 and cut the centre, then mirror: (n, h, w) or (n, h, w, 3) -> the same shape and dtype.

    Serves frames and flow maps alike, so that they stay together.
    """
    if zoom > 1:
        import cv2

        height, width = frames.shape[1:3]
        shift = (1 - zoom) / 2
        matrix = np.array([[zoom, 0, shift * (width - 1)], [0, zoom, shift * (height - 1)]])
        frames = np.stack([cv2.warpAffine(f, matrix, (width, height), flags=cv2.INTER_LINEAR) for f in frames])
    return frames[:, :, ::-1] if flip else frames


def cut_out(frame: np.ndarray, box: np.ndarray, size: int, margin: float = 1.5) -> np.ndarray:
    """The face on plain white ground: the ellipse in the box grown by `margin`, as a square (size, size, 3) uint8.

    frame: uint8 RGB (h, w, 3). box: x0, y0, x1, y1 in its pixels. What the square shows outside of the frame is white.
    """
    import cv2

    centre = (box[:2] + box[2:]) / 2
    side = float(max(box[2:] - box[:2])) * margin
    scale = size / max(side, 1.0)
    matrix = np.array([[scale, 0, size / 2 - scale * centre[0]], [0, scale, size / 2 - scale * centre[1]]])
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    face = cv2.warpAffine(
        np.ascontiguousarray(frame), matrix, (size, size), flags=flags, borderValue=(255.0, 255.0, 255.0)
    )
    ticks = (np.arange(size) + 0.5) / size * 2 - 1
    face[ticks[:, None] ** 2 + ticks**2 > 1] = 255
    return face
