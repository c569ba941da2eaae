"""How a person moves through a clip: paths, turning points and framing, from what the motion stage measured.

Lengths are compared with the height of the face box, so that the same numbers mean the same motion near and far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STEADY = 0.7  # a motion keeps its direction where its net path is this share of its length
CAMERA = 1.0  # grid px per step from which on the camera moves


@dataclass(frozen=True)
class Track:
    """How a person moves, by what the motion stage measured per pair of grid frames; arrays are float64 (pairs,).

    x, y: of the face relative to the camera, or on the screen where the camera is not known, in face heights; screen_x,
    screen_y: on the screen. grow: relative change of its size; grown: the same over all pairs, by its boxes. roll:
    radians, clockwise on screen. mouth, cheek: motion within the mouth region and in the rest of the face, grid px.
    camera_x, camera_y: grid px; camera_zoom: relative. height: of the face, grid px. whole: the picture shows the whole
    person.
    """

    x: np.ndarray
    y: np.ndarray
    screen_x: np.ndarray
    screen_y: np.ndarray
    grow: np.ndarray
    grown: float
    roll: np.ndarray
    mouth: np.ndarray
    cheek: np.ndarray
    camera_x: np.ndarray
    camera_y: np.ndarray
    camera_zoom: np.ndarray
    camera_known: bool
    height: float
    whole: bool


def track(
    face_motion: Sequence[Sequence[float]], face_boxes: Sequence[Sequence[float]], size: int, camera_known: bool
) -> Track:
    """The Track of one clip; arguments as in `describe`."""
    boxes = np.asarray(face_boxes, float)
    box = np.median(boxes, axis=0)
    face_x, face_y, height = (box[0] + box[2] - size) / 2, (box[1] + box[3] - size) / 2, box[3] - box[1]
    dx, dy, grow, roll, mouth, cheek, cam_x, cam_y, zoom, cam_roll = np.array(face_motion, float).T
    screen_x = dx + cam_x + zoom * face_x - cam_roll * face_y
    screen_y = dy + cam_y + zoom * face_y + cam_roll * face_x
    if not camera_known:  # for most pairs; the few others do not go with them
        dx, dy, grow, roll = screen_x, screen_y, grow + zoom, roll + cam_roll
        cam_x = cam_y = zoom = np.zeros_like(dx)
    elif np.hypot(cam_x, cam_y).mean() >= CAMERA:  # what the face does against a moving ground that is not known
        for steps in (dx, dy, grow, roll):
            steps[(cam_x == 0) & (cam_y == 0)] = 0.0
    grown = _growth(boxes) - float(zoom.sum())
    return Track(
        dx / height,
        dy / height,
        screen_x / height,
        screen_y / height,
        grow,
        grown,
        roll,
        mouth,
        cheek,
        cam_x,
        cam_y,
        zoom,
        camera_known,
        height,
        whole=framing(box, size) == "full-body",
    )


def framing(box: Sequence[float], size: int) -> str:
    """How much of a person the grid shows: by the height of the face, and by the room below the chin in face heights
    (the chest ends some two of them below the chin, the knees some six)."""
    height = box[3] - box[1]
    below = (size - box[3]) / height
    if height >= 0.45 * size:
        return "close-up"
    return "head-and-shoulders" if below < 1.5 else "upper-body" if below < 4.5 else "full-body"


def net(steps: np.ndarray, limit: float) -> float:
    """The net path of these steps where it is at least `limit` and keeps its direction, else 0. It may not hang on two
    steps, on which flow may have failed."""
    path = float(steps.sum())
    most = float(np.sort(steps * np.sign(path))[:-2].sum())
    return path if abs(path) >= max(limit, STEADY * float(np.abs(steps).sum())) and most >= limit / 2 else 0.0


def swing(steps: np.ndarray, limit: float, turns: int) -> float:
    """The median length between the turning points of a path that turns `turns` times or more, each time by at least
    `limit`, else 0."""
    path = np.concatenate([[0.0], np.cumsum(steps)])
    ends, low, high, way = [], path[0], path[0], 0  # ends: where the path begins, then where it turns
    for at in path[1:]:
        low, high = min(low, at), max(high, at)
        if way >= 0 and at <= high - limit:
            ends.append(high)
            low, high, way = at, at, -1
        elif way <= 0 and at >= low + limit:
            ends.append(low)
            low, high, way = at, at, 1
    ends.append(high if way > 0 else low)
    return float(np.median(np.abs(np.diff(ends)))) if len(ends) - 2 >= turns else 0.0


def _growth(boxes: np.ndarray) -> float:
    """Change of the logarithm of a face's height over its boxes (k, 4), by the means of their halves; 0 for one box."""
    sizes = np.log(boxes[:, 3] - boxes[:, 1])
    half = len(sizes) // 2
    return 2 * float(sizes[-half:].mean() - sizes[:half].mean()) if half else 0.0
