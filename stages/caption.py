"""Captions: an overall description P and an action phrase A of every clip.

The embedded engine, `kinematic`, puts into words what the motion stage measured in and around the face box, and
nothing else: framing, how the head moves relative to the camera, whether the mouth moves, how strongly, and what the
camera does. It never names gender, age, mood or things. Lengths are compared with the height of the face box, so that
the same phrase means the same motion near and far.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from manifests.schema import fields
from stages import base
from stages.base import ClipError, Measured, Sample, Stage
from stages.frames import FrameSpec
from stages.image_text import ImageText
from stages.minigpt4 import MiniGPT4
from stages.openai_caption import OpenAICaption
from stages.track import CAMERA, Track, framing, net, swing, track

# In face heights, rolls in radians; motion below these is not spoken of.
DRIFT = 0.09  # net path of a translation
GROWTH = 0.14  # net or swung change of the logarithm of size
ROLL = 0.09  # net or swung rotation
SWING = 0.045  # of a translation back and forth, from one turning point to the next

# How often what goes back and forth turns at least. A hand that holds a camera sways, but slowly.
TURNS, TURNS_CAMERA_UNKNOWN = 2, 4
HEAD_SWING = 0.12  # face heights; a larger swing is no nod or shake, but the head moved about
BODY_SWING = 0.4  # face heights; a larger swing takes the body with it
NECK = 1.0  # face heights at most from the neck to the middle of the face that swings about it
MINOR = 1 / 3  # a swing less than this share of the one across it is its by-product

# A mouth moves where it moves more than the rest of the face, by some share of its height, and as finely as flow tells.
MOUTH_OVER_CHEEK, MOUTH, MOUTH_PX = 1.3, 0.01, 1.0
SMALL_FACE_PX = 80.0  # in a smaller face, flow does not tell the mouth from the rest
TALK, MOUTHING = 0.5, 0.18  # shares of the steps with a moving mouth

RESTLESS = 0.01  # half the mean change of motion per step, face heights, of one who moves without going anywhere

WEAK, STRONG = 3.0, 12.0  # grid px per step: intensity that the camera does not explain


def describe(
    kind: Literal["video", "image"],
    face_motion: Sequence[Sequence[float]] | None,
    face_boxes: Sequence[Sequence[float]] | None,
    motion_intensity: float,
    camera_motion: float | None,
    size: int,
    adverbs: bool = True,
) -> tuple[str, str]:
    """The overall description P and the action phrase A of one clip.

    face_motion: per pair of grid frames, the ten numbers of flows/kinematics.py; None where there is no face to follow.
    face_boxes: x0, y0, x1, y1 in grid px, on any frames. motion_intensity, camera_motion: grid px per step; None where
    it was not measured. size: side of the grid, px. adverbs: see KinematicParams.
    """
    box = np.median(np.asarray(face_boxes, float), axis=0) if face_boxes else None
    shot = "portrait" if box is None else framing(box, size)
    article = "An" if shot[0] in "aeiou" else "A"
    if kind == "image":
        return f"{article} {shot} picture of a person.", "holding still"
    if face_motion and face_boxes and box is not None:
        seen = track(face_motion, face_boxes, size, camera_motion is not None)
        face_px = float(np.hypot(seen.x, seen.y).mean()) * seen.height
        own = min(motion_intensity, face_px) if camera_motion is None else motion_intensity - camera_motion
        action, camera = act(seen, own, adverbs), move_camera(seen)
    else:
        action, camera = "moving" if motion_intensity - (camera_motion or 0.0) >= CAMERA else "holding still", ""
    return f"{article} {shot} video of a person {action}{camera}.", action


_DESCRIBED = re.compile(r"An? [\w-]+ (?:video of a person (.+?)(?:, while the camera .+)?|(picture) of a person)\.?")


def action_in(caption: str) -> str | None:
    """The action phrase A in an overall description P of the form that `describe` gives it, else None."""
    found = _DESCRIBED.fullmatch(caption.strip())
    return None if found is None else "holding still" if found[2] else found[1]


def act(seen: Track, intensity: float, adverbs: bool = True) -> str:
    """The action phrase. intensity: of the person's own motion, grid px per step; it gives the adverb, if any."""
    talk, moves = move_mouth(seen), move_head(seen)
    if not moves:
        tremble = np.hypot(np.diff(seen.x), np.diff(seen.y)).mean() / 2
        restless = tremble >= RESTLESS and not camera_moves(seen)
        return talk or ("moving slightly" if restless else "holding still")
    with_head = any(word in moves[0] for word in ("head", "nodding"))
    slow, fast = ("slightly", "vigorously") if with_head else ("slowly", "quickly")
    adverb = "" if not adverbs else slow if intensity < WEAK else fast if intensity >= STRONG else ""
    moving = " ".join([" and ".join(moves), adverb]).rstrip()
    return f"{talk} while {moving}" if talk else moving


def move_head(seen: Track) -> list[str]:
    """What the head does: the two plainest phrases at most, none for a still head."""
    turns = TURNS if seen.camera_known else TURNS_CAMERA_UNKNOWN
    # The ground also moves behind one whom the camera follows or circles: a person moves where the face does so both
    # against the ground and on the screen.
    x_swing = min(swing(seen.x, SWING, turns), swing(seen.screen_x, SWING, turns))
    y_swing = min(swing(seen.y, SWING, turns), swing(seen.screen_y, SWING, turns))
    roll_swing, grow_swing = swing(seen.roll, ROLL, turns), swing(seen.grow, GROWTH, turns)
    x = y = grow = roll = 0.0
    if seen.camera_known:  # else a steady path may as well be the camera's
        x = _agreed(net(seen.x, DRIFT), net(seen.screen_x, DRIFT))
        y = _agreed(net(seen.y, DRIFT), net(seen.screen_y, DRIFT))
        grow, roll = net(seen.grow, GROWTH), net(seen.roll, ROLL)
        if grow * seen.grown <= 0 or abs(seen.grown) < GROWTH / 3:  # a face that turns shrinks on one side
            grow = 0.0

    # A head that tilts swings about the neck, and a body that sways takes the head's tilt with it: say the greater.
    if abs(x) <= NECK * abs(roll):
        x = 0.0
    if x_swing <= NECK * roll_swing and not seen.whole:
        x_swing = 0.0
    else:
        roll_swing = 0.0
    if x_swing < MINOR * y_swing:
        x_swing = 0.0
    if y_swing < MINOR * x_swing:
        y_swing = 0.0

    body_swing = HEAD_SWING if seen.whole else BODY_SWING
    ways = ["up" if y < 0 else "down"] * bool(y) + ["to the left" if x < 0 else "to the right"] * bool(x)
    swings = ((y_swing, "up and down"), (x_swing, "from side to side"))
    with_body = [way for size, way in swings if size > body_swing]
    with_head = [way for size, way in swings if HEAD_SWING < size <= body_swing]
    phrases = {
        "coming closer": grow > 0,
        "moving away": grow < 0,
        "moving " + " and ".join(ways): ways,
        "moving back and forth": grow_swing,
        "moving " + " and ".join(with_body): with_body,
        "tilting the head to the " + ("left" if roll < 0 else "right"): roll,
        "tilting the head from side to side": roll_swing,
        "moving the head " + " and ".join(with_head): with_head,
        "nodding": 0 < y_swing <= HEAD_SWING,
        "shaking the head": 0 < x_swing <= HEAD_SWING,
    }
    return [phrase for phrase, so in phrases.items() if so][:2]


def move_mouth(seen: Track) -> str:
    """ "talking" where the mouth moves by itself most of the time, "moving the mouth" where it does at times, or ""."""
    if seen.height < SMALL_FACE_PX:
        return ""
    least = np.maximum(MOUTH_OVER_CHEEK * seen.cheek, max(MOUTH * seen.height, MOUTH_PX))
    share = float((seen.mouth > least).mean())
    return "talking" if share >= TALK else "moving the mouth" if share >= MOUTHING else ""


def move_camera(seen: Track) -> str:
    """What the camera does, to be put after the action; "" while it is still. It moves left where the ground moves
    right."""
    zoom = net(seen.camera_zoom, GROWTH)
    if zoom:
        return ", while the camera zooms " + ("in" if zoom > 0 else "out")
    if not camera_moves(seen):
        return ""
    least = CAMERA * len(seen.camera_x) / 2
    x, y = net(seen.camera_x, least), net(seen.camera_y, least)
    ways = ["up" if y > 0 else "down"] * bool(y) + ["left" if x > 0 else "right"] * bool(x)
    return ", while the camera moves " + (" and ".join(ways) or "about")


def camera_moves(seen: Track) -> bool:
    """Whether the middle of the ground moves."""
    return float(np.hypot(seen.camera_x, seen.camera_y).mean()) >= CAMERA


def _agreed(a: float, b: float) -> float:
    """The smaller of two paths that have the same direction, else 0."""
    return min(a, b, key=abs) if a * b > 0 else 0.0


class KinematicParams(base.Params):
    """adverbs: whether phrases say how fast (slowly, quickly). Without, A tells what is done, and M alone how much."""

    adverbs: bool = True


class Kinematic:
    """The embedded engine: no model, only words."""

    Params: type[base.Params] = KinematicParams

    def __init__(self, params: KinematicParams, spec: FrameSpec) -> None:
        self._size = spec.size
        self._adverbs = params.adverbs

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
            self._adverbs,
        )
        return Measured({"caption": caption, "action": action})


STAGE = Stage(
    name="caption",
    needs="columns",
    fields=fields("caption", "action"),
    engines={"kinematic": Kinematic, "minigpt4": MiniGPT4, "image_text": ImageText, "openai": OpenAICaption},
    reads=("crop", "motion"),
)
