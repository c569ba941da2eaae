"""How the face moves between frames, in ten numbers, which the caption stage puts into words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flows.camera import similarity_field

# The order of a row. dx, dy: mean translation of the face relative to the camera, grid px. divergence: relative growth.
# roll: rotation, radians, clockwise on screen. mouth, cheek: mean length of what is left of the flow in the mouth's
# region and in the rest of the face once the face's own similarity motion is taken off, grid px. cam_*: the camera's
# motion at the middle of the picture, in the same units; all 0 where the camera is unknown. All per grid step.
COLUMNS = ("dx", "dy", "divergence", "roll", "mouth", "cheek", "cam_dx", "cam_dy", "cam_zoom", "cam_roll")
MOUTH = (0.25, 0.62, 0.75, 0.98)  # region of the mouth in the face box: x0, y0, x1, y1 as shares of its sides
SAMPLES = 32  # samples per side of the face box
MIN_SIDE = 8  # px of the picture that a face box must cover


def boxes_per_frame(frames: Sequence[int], boxes: Sequence[Sequence[float]], count: int) -> np.ndarray:
    """The face box of each of `count` frames, float64 (count, 4): linear between the looked-at frames (indices, in
    order, at least one), constant before the first and after the last."""
    known = np.asarray(boxes, dtype=np.float64)
    return np.stack([np.interp(np.arange(count), frames, known[:, side]) for side in range(4)], axis=-1)


def face_kinematics(flow: np.ndarray, boxes: np.ndarray, camera: np.ndarray) -> np.ndarray | None:
    """A row of `COLUMNS` per frame pair, float32 (N-1, 10); None where a face box lies too far outside the
    picture, with the mouth or all but the mouth.

    flow: float32 (N-1, h, w, 2). boxes: face box per frame in grid px (N, 4). camera: similarity per pair about the
    middle of the picture (N-1, 4), NaN where unknown.
    """
    pairs, height, width, _ = flow.shape
    camera = np.nan_to_num(camera, nan=0.0)
    rows = np.empty((pairs, len(COLUMNS)), np.float32)
    for i in range(pairs):
        x0, x1 = np.clip(np.rint(boxes[i, [0, 2]]), 0, width).astype(int)
        y0, y1 = np.clip(np.rint(boxes[i, [1, 3]]), 0, height).astype(int)
        if x1 - x0 < MIN_SIDE or y1 - y0 < MIN_SIDE:
            return None
        x, y = (
            a.ravel()
            for a in np.meshgrid(
                np.linspace(x0, x1 - 1, min(SAMPLES, x1 - x0)).astype(int),
                np.linspace(y0, y1 - 1, min(SAMPLES, y1 - y0)).astype(int),
            )
        )
        at = np.stack([x, y], axis=-1)
        vectors = flow[i, y, x] - similarity_field(camera[i], at - (width / 2, height / 2))
        points = at - boxes[i].reshape(2, 2).mean(axis=0)
        mouth = _in_mouth(at, boxes[i])
        face = _in_ellipse(at, boxes[i]) & ~mouth
        if not mouth.any() or not face.any():
            return None
        own = _robust_similarity(points[face], vectors[face])
        left = np.linalg.norm(vectors - similarity_field(own, points), axis=-1)
        rows[i] = [*own, left[mouth].mean(), left[face].mean(), *camera[i]]
    return rows


def _in_mouth(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    share = (points - box[:2]) / (box[2:] - box[:2])
    return np.all((share >= MOUTH[:2]) & (share <= MOUTH[2:]), axis=-1)


def _in_ellipse(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The corners of a face box show hair and ground."""
    share = (points - box[:2]) / (box[2:] - box[:2])
    return np.linalg.norm(2 * share - 1, axis=-1) <= 1


def _robust_similarity(points: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The similarity (4,) that fits vectors (n, 2) at points (n, 2), by least squares reweighted after Huber: ground
    beside the face, or an eye that blinks, pulls less than the face."""
    weights = np.ones(len(points))
    for _ in range(5):
        fitted = _least_squares(points, vectors, weights)
        left = np.linalg.norm(vectors - similarity_field(fitted, points), axis=-1)
        bound = max(0.25, float(np.median(left)))
        weights = bound / np.maximum(left, bound)
    return fitted


def _least_squares(points: np.ndarray, vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    mean_point = np.average(points, axis=0, weights=weights)
    mean_vector = np.average(vectors, axis=0, weights=weights)
    (x, y), (u, v) = (points - mean_point).T, (vectors - mean_vector).T
    spread = np.sum(weights * (x * x + y * y))
    zoom = np.sum(weights * (x * u + y * v)) / spread
    roll = np.sum(weights * (x * v - y * u)) / spread
    # The means are at the mean point: carry them to the centre.
    dx = mean_vector[0] - zoom * mean_point[0] + roll * mean_point[1]
    dy = mean_vector[1] - roll * mean_point[0] - zoom * mean_point[1]
    return np.array([dx, dy, zoom, roll])
