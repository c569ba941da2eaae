"""Captions: an overall description P and an action phrase A of every clip.

The embedded engine, `kinematic`, puts into words what the motion stage measured in and around the face box, and
nothing else: framing, how the head moves relative to the camera, whether the mouth moves, how strongly, and what the
camera does. It never names gender, age, mood or things. Lengths are compared with the height of the face box, so that
the same phrase means the same motion near and far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from manifests.schema import fields
from stages import base
from stages.base import ClipError, Measured, Sample, Stage
from stages.frames import FrameSpec

# In face heights, rolls in radians; motion below these is not spoken of.
DRIFT = 0.06  # net path of a translation
GROWTH = 0.1  # net change of the logarithm of size
ROLL = 0.09  # net or swung rotation
SWING = 0.025  # of a translation back and forth, from one turning point to the next
MOUTH = 0.015  # motion of the mouth within the face, per step

STEADY = 0.7  # a motion keeps its direction where its net path is this share of its length
TURNS = 2  # as many turning points make a motion back and forth
HEAD_SWING = 0.15  # face heights; a larger swing is no nod or shake, but the head moved about
BODY_SWING = 0.4  # face heights; a larger swing takes the body with it
NECK = 1.0  # face heights from the neck, at most, to the middle of the face that swings about it

MOUTH_OVER_CHEEK = 1.25  # a mouth moves by itself where it moves that much more than the rest of the face
TALK, MOUTHING = 0.5, 0.12  # shares of the steps with a moving mouth

WEAK, STRONG = 3.0, 12.0  # grid px per step: intensity that the camera does not explain
CAMERA = 1.0  # grid px per step from which on the camera moves


@dataclass(frozen=True)
class Track:
    """How a person moves, by what the motion stage measured per pair of grid frames; arrays are float64 (pairs,).

    x, y: of the face relative to the camera, face heights. grow: relative change of size. roll: radians, clockwise on
    screen. mouth, cheek: motion within the mouth region and in the rest of the face, face heights. camera_x, camera_y:
    grid px; camera_zoom: relative.
    """

    x: np.ndarray
    y: np.ndarray
    grow: np.ndarray
    roll: np.ndarray
    mouth: np.ndarray
    cheek: np.ndarray
    camera_x: np.ndarray
    camera_y: np.ndarray
    camera_zoom: np.ndarray

    @classmethod
    def of(cls, face_motion: Sequence[Sequence[float]], box: Sequence[float], size: int) -> Track:
        """face_motion: the rows of flows/kinematics.py. box: x0, y0, x1, y1 of the face, grid px. size: of the grid."""
        dx, dy, grow, roll, mouth, cheek, cam_x, cam_y, zoom, cam_roll = np.asarray(face_motion, float).T
        face_x, face_y, height = (box[0] + box[2] - size) / 2, (box[1] + box[3] - size) / 2, box[3] - box[1]
        # A camera that follows a person makes the ground move, one that circles a person does too: a person moves where
        # the face moves both against the ground and on the screen.
        x = _agreed(dx, dx + cam_x + zoom * face_x - cam_roll * face_y)
        y = _agreed(dy, dy + cam_y + zoom * face_y + cam_roll * face_x)
        return cls(x / height, y / height, grow, roll, mouth / height, cheek / height, cam_x, cam_y, zoom)


def describe(
    kind: Literal["video", "image"],
    face_motion: Sequence[Sequence[float]] | None,
    face_boxes: Sequence[Sequence[float]] | None,
    motion_intensity: float,
    camera_motion: float | None,
    size: int,
) -> tuple[str, str]:
    """The overall description P and the action phrase A of one clip.

    face_motion: per pair of grid frames, the ten numbers of flows/kinematics.py; None where there is no face to follow.
    face_boxes: x0, y0, x1, y1 in grid px, on any frames. motion_intensity, camera_motion: grid px per step; None where
    it was not measured. size: side of the grid, px.
    """
    box = np.median(np.asarray(face_boxes, float), axis=0) if face_boxes else None
    shot = "portrait" if box is None else framing(box, size)
    article = "An" if shot[0] in "aeiou" else "A"
    if kind == "image":
        return f"{article} {shot} picture of a person.", "holding still"
    own = motion_intensity - (camera_motion or 0.0)
    if face_motion and box is not None:
        track = Track.of(face_motion, box, size)
        action, camera = act(track, own), move_camera(track)
    else:
        action, camera = "holding still" if own < CAMERA else "moving", ""
    return f"{article} {shot} video of a person {action}{camera}.", action


def framing(box: Sequence[float], size: int) -> str:
    """How much of a person the grid shows: by the height of the face, and by the room below the chin in face heights
    (the chest ends some two of them below the chin, the knees some six)."""
    height = box[3] - box[1]
    below = (size - box[3]) / height
    if height >= 0.45 * size:
        return "close-up"
    return "head-and-shoulders" if below < 1.8 else "upper-body" if below < 4.5 else "full-body"


def act(track: Track, intensity: float) -> str:
    """The action phrase. intensity: of the person's own motion, grid px per step; it gives the adverb."""
    talk, moves = move_mouth(track), move_head(track)
    if not moves:
        return talk or "holding still"
    travels = moves[0].startswith(("coming", "moving to", "moving up", "moving down", "moving away"))
    slow, fast = ("slowly", "quickly") if travels else ("slightly", "strongly")
    adverb = slow if intensity < WEAK else fast if intensity >= STRONG else ""
    moving = " ".join([" and ".join(moves), adverb]).rstrip()
    return f"{talk} while {moving}" if talk else moving


def move_head(track: Track) -> list[str]:
    """What the head does: the two plainest phrases at most, none for a still head."""
    x, x_swing = net(track.x, DRIFT), swing(track.x, SWING)
    y, y_swing = net(track.y, DRIFT), swing(track.y, SWING)
    roll, roll_swing = net(track.roll, ROLL), swing(track.roll, ROLL)
    grow = net(track.grow, GROWTH)
    # A head that tilts swings about the neck, and a body that sways takes the head's tilt with it: say the greater.
    if abs(x) <= NECK * abs(roll):
        x = 0.0
    if x_swing <= NECK * roll_swing:
        x_swing = 0.0
    else:
        roll_swing = 0.0

    ways = [("up" if y < 0 else "down")] * bool(y) + [("to the left" if x < 0 else "to the right")] * bool(x)
    swings = ((y_swing, "up and down"), (x_swing, "from side to side"))
    with_body = [way for size, way in swings if size > BODY_SWING]
    with_head = [way for size, way in swings if HEAD_SWING < size <= BODY_SWING]
    phrases = {
        "coming closer": grow > 0,
        "moving away": grow < 0,
        "moving " + " and ".join(ways): ways,
        "moving " + " and ".join(with_body): with_body,
        "tilting the head to the " + ("left" if roll < 0 else "right"): roll,
        "tilting the head from side to side": roll_swing,
        "moving the head " + " and ".join(with_head): with_head,
        "nodding": 0 < y_swing <= HEAD_SWING,
        "shaking the head": 0 < x_swing <= HEAD_SWING,
    }
    return [phrase for phrase, so in phrases.items() if so][:2]


def move_mouth(track: Track) -> str:
    """ "talking" where the mouth moves by itself most of the time, "moving the mouth" where it does at times, or ""."""
    moving = (track.mouth > MOUTH) & (track.mouth > MOUTH_OVER_CHEEK * track.cheek)
    return "talking" if moving.mean() >= TALK else "moving the mouth" if moving.mean() >= MOUTHING else ""


def move_camera(track: Track) -> str:
    """What the camera does, to be put after the action; "" while it is still. When it turns right, the ground moves
    left."""
    if np.hypot(track.camera_x, track.camera_y).mean() < CAMERA and not net(track.camera_zoom, GROWTH):
        return ""
    steps = CAMERA * len(track.camera_x)
    x, y, zoom = net(track.camera_x, steps), net(track.camera_y, steps), net(track.camera_zoom, GROWTH)
    if zoom:
        return ", while the camera zooms " + ("in" if zoom > 0 else "out")
    ways = [("up" if y > 0 else "down")] * bool(y) + [("left" if x > 0 else "right")] * bool(x)
    return ", while the camera " + ("turns " + " and ".join(ways) if ways else "moves about")


def net(steps: np.ndarray, limit: float) -> float:
    """The net path of these steps where it is at least `limit` and keeps its direction, else 0."""
    path = float(steps.sum())
    return path if abs(path) >= max(limit, STEADY * float(np.abs(steps).sum())) else 0.0


def swing(steps: np.ndarray, limit: float) -> float:
    """The median length between the turning points of a path that turns `TURNS` times or more by at least `limit`,
    else 0."""
    path = np.concatenate([[0.0], np.cumsum(steps)])
    turns, low, high, way = [], path[0], path[0], 0
    for at in path[1:]:
        low, high = min(low, at), max(high, at)
        if way >= 0 and at <= high - limit:  # it went down from its highest point
            turns.append(high)
            low, high, way = at, at, -1
        elif way <= 0 and at >= low + limit:
            turns.append(low)
            low, high, way = at, at, 1
    ends = [*turns, high if way > 0 else low]
    return float(np.median(np.abs(np.diff(ends)))) if len(turns) > TURNS else 0.0


def _agreed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smaller of two steps that have the same direction, else 0."""
    return np.where(a * b > 0, np.where(np.abs(a) < np.abs(b), a, b), 0.0)


class Kinematic:
    """The embedded engine: no model, only words."""

    Params = base.Params

    def __init__(self, params: base.Params, spec: FrameSpec) -> None:
        self._size = spec.size

    def version(self) -> str:
        return "1"

    def setup(self, device: str) -> None:
        """There is nothing to load."""

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """`caption` and `action` of each sample, from the columns of the crop and motion stages."""
        return [self._measure(sample) for sample in batch]

    def _measure(self, sample: Sample) -> Measured:
        columns = sample.columns
        caption, action = describe(
            sample.clip.kind,
            columns["face_motion"],
            columns["face_boxes"],
            columns["motion_intensity"],
            columns["camera_motion"],
            self._size,
        )
        return Measured({"caption": caption, "action": action})


STAGE = Stage(
    name="caption",
    needs="columns",
    fields=fields("caption", "action"),
    engines={"kinematic": Kinematic},
    reads=("crop", "motion"),
)
