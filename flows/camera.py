"""The camera's part of the flow: a global similarity transform per frame pair, fitted outside the person.

A similarity is four numbers (dx, dy, zoom, roll): it moves a point p by (dx, dy) + (zoom, roll) applied to p - centre:
(dx + zoom x - roll y, dy + roll x + zoom y), with (x, y) = p - centre, y down. To first order zoom is the relative
growth, and roll the rotation in radians, clockwise on screen.
"""

from __future__ import annotations

import numpy as np

STRIDE = 16  # px between samples of the flow
INLIER_PX = 1.0  # tolerance of agreement, and a share of the median length beside it: flow errs in proportion
INLIER_SHARE = 0.05
STILL_PX = 0.25
# Smallest share of the picture that must be textured ground, of it that must agree on one camera, and of it that,
# by keeping its place, shows that the camera does too.
MIN_GROUND = 0.04
MIN_AGREED = 0.4
MIN_STILL = 0.3
# Textured: smaller eigenvalue of the structure tensor over 15 grid px, at half size, grey values 0..1.
MIN_TEXTURE = 5e-6


def lattice(height: int, width: int) -> np.ndarray:
    """Pixels at which the flow is sampled, int (n, 2), (x, y)."""
    x, y = np.meshgrid(np.arange(STRIDE // 2, width, STRIDE), np.arange(STRIDE // 2, height, STRIDE))
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def similarity_field(similarity: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Displacement (n, 2) that a similarity (4,) gives points (n, 2), which are relative to its centre."""
    dx, dy, zoom, roll = similarity
    x, y = points[:, 0], points[:, 1]
    return np.stack([dx + zoom * x - roll * y, dy + roll * x + zoom * y], axis=-1)


def outside_person(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Which points (n, 2) surely lie outside the person with this face box (x0, y0, x1, y1): bool (n,).

    The person is the face box enlarged to hold hair and ears, and a column three faces wide below the chin.
    """
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    beside = np.abs(points[:, 0] - (x0 + x1) / 2)
    head = (beside < 0.8 * width) & (points[:, 1] > y0 - 0.6 * height)
    body = (beside < 1.5 * width) & (points[:, 1] > y1)
    return ~(head | body)


def camera_similarities(flow: np.ndarray, images: np.ndarray, boxes: np.ndarray | None) -> np.ndarray:
    """The camera's similarity per frame pair about the middle of the picture: float64 (N-1, 4), NaN where unknown.

    flow: float32 (N-1, h, w, 2). images: uint8 RGB (N, h, w, 3). boxes: face box per frame (N, 4), or None where no
    face is known; then all of the picture is ground. A plain ground says nothing of the camera, nor does one that the
    person hides, nor one on which no two fifths move alike: then it is unknown.
    """
    pairs, height, width, _ = flow.shape
    points = lattice(height, width)
    x, y = points.T
    result = np.full((pairs, 4), np.nan)
    for i in range(pairs):
        ground = _textured(images[i])[y // 2, x // 2]
        if boxes is not None:
            ground &= outside_person(points, boxes[i])
        if ground.mean() >= MIN_GROUND:
            result[i] = _fit(points[ground] - (width / 2, height / 2), flow[i][y, x][ground])
    return result


def camera_motion(similarities: np.ndarray, height: int, width: int) -> float | None:
    """Mean length of the camera's part of the flow over the picture and over the pairs where it is known, px per grid
    step; None where it is known for less than half of the pairs."""
    known = similarities[~np.isnan(similarities[:, 0])]
    if 2 * len(known) < len(similarities):
        return None
    points = lattice(height, width) - (width / 2, height / 2)
    return float(np.mean([np.linalg.norm(similarity_field(s, points), axis=-1).mean() for s in known]))


def _fit(points: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """The similarity that most vectors (n, 2) at points (n, 2) agree on; NaN where too few do."""
    import cv2

    # Under a moving camera nothing keeps its place; so ground that does is still, however much of the rest moves along
    # with the person.
    still = np.linalg.norm(vectors, axis=-1) < STILL_PX
    if still.mean() >= MIN_STILL:
        points, vectors = points[still], vectors[still]
    tolerance = INLIER_PX + INLIER_SHARE * float(np.median(np.linalg.norm(vectors, axis=-1)))
    # OpenCV's RANSAC draws from a fixed seed.
    matrix, agreed = cv2.estimateAffinePartial2D(
        points, points + vectors, method=cv2.RANSAC, ransacReprojThreshold=tolerance, maxIters=1000
    )
    if matrix is None or agreed.mean() < MIN_AGREED:
        return np.full(4, np.nan)
    return np.array([matrix[0, 2], matrix[1, 2], matrix[0, 0] - 1, matrix[1, 0]])


def _textured(image: np.ndarray) -> np.ndarray:
    """Where flow can be told at all, at half size: bool (h / 2, w / 2)."""
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.cornerMinEigenVal(half, blockSize=7, ksize=3) > MIN_TEXTURE
