"""The motions that `examples.rendering` can show. Lengths are in grid pixels; x runs right, y down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Motion:
    """How one kind of motion moves what.

    what: the part that moves. dx, dy, scale, roll: displacement, relative size and rotation (radians, clockwise) per
    pixel of path. room: longest one-way path, px; longer ones turn back and forth. period_s: of an oscillation, or None
    for a steady motion.
    """

    what: Literal["person", "head", "face", "jaw", "camera"]
    dx: float = 0.0
    dy: float = 0.0
    scale: float = 0.0
    roll: float = 0.0
    room: float = 300.0
    period_s: float | None = None


MOTIONS: dict[str, Motion] = {
    "still": Motion("person"),
    "left": Motion("person", dx=-1),
    "right": Motion("person", dx=1),
    "up": Motion("person", dy=-1, room=200),
    "down": Motion("person", dy=1, room=200),
    "nearer": Motion("person", scale=1 / 100, room=90),
    "farther": Motion("person", scale=-1 / 100, room=75),
    "tilt_right": Motion("head", roll=1 / 100, room=26),
    "tilt_left": Motion("head", roll=-1 / 100, room=26),
    "nod": Motion("face", dy=1, period_s=1.5),
    "head_nod": Motion("head", dy=1, period_s=1.25),
    "shake": Motion("face", dx=1, period_s=1.5),
    "talk": Motion("jaw", dy=1, period_s=0.7),
    "pan_left": Motion("camera", dx=1),  # the camera turns left, so the picture moves right
    "pan_right": Motion("camera", dx=-1),
    "zoom_in": Motion("camera", scale=1 / 100, room=75),
}
