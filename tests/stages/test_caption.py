"""What the kinematic engine says of rendered motion, of made measurements, and of the real clips."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.rendering import Rendered, render
from flows.dis import PRESETS, dis_flow
from stages.base import Sample
from stages.caption import Kinematic, KinematicParams
from stages.clip import Clip
from stages.crop import Square, SquareParams
from stages.face import Dlib, DlibParams
from stages.frames import FrameSpec
from stages.motion import Dis, DisParams, motion_from_flow
from tests.stages.samples import columns_of, real


def measured(clip: Rendered) -> dict[str, Any]:
    """What the motion stage measures on the rendered frames."""
    images = clip.grid()
    boxes = [list(clip.face_box(t)) for t in clip.times()]
    columns = {"face_frames": list(range(16)), "face_boxes": boxes}
    return columns | motion_from_flow(dis_flow(images, PRESETS["fast"]), images, columns).columns


def said(columns: dict[str, Any]) -> tuple[str, str]:
    """Caption and action of these measurements."""
    sample = Sample(Clip("s", "x.mp4", "video", "1"), columns)
    found = columns_of(Kinematic(KinematicParams(), FrameSpec()).measure([sample])[0])
    return found["caption"], found["action"]


@pytest.mark.parametrize(
    ("motion", "speed", "action"),
    [
        ("still", 0, "holding still"),
        ("left", 1, "moving to the left slowly"),
        ("right", 6, "moving to the right"),
        ("left", 15, "moving to the left quickly"),
        ("left", 22, "moving from side to side quickly"),
        ("up", 2, "moving up slowly"),
        ("down", 9, "moving down"),
        ("up", 14, "moving up and down quickly"),
        ("nearer", 1.2, "coming closer slowly"),
        ("nearer", 4, "coming closer"),
        ("farther", 3, "moving away"),
        ("nearer", 12, "moving back and forth quickly"),
        ("tilt_right", 1.6, "tilting the head to the right slightly"),
        ("tilt_left", 1.2, "tilting the head to the left slightly"),
        ("tilt_right", 5, "tilting the head from side to side"),
        ("nod", 3, "nodding slightly"),
        ("nod", 10, "moving the head up and down"),
        ("shake", 3, "shaking the head slightly"),
        ("shake", 10, "moving the head from side to side"),
        ("talk", 6, "talking"),
    ],
)
def test_rendered_motion_is_put_into_words(motion: str, speed: float, action: str) -> None:
    caption, found = said(measured(render(motion, speed)))
    assert found == action
    assert caption == f"An upper-body video of a person {action}."


@pytest.mark.parametrize(
    ("motion", "speed", "camera"),
    [
        ("pan_left", 2, "moves left"),
        ("pan_right", 8, "moves right"),
        ("pan_right", 14, "moves right"),
        ("zoom_in", 3, "zooms in"),
    ],
)
def test_the_motion_of_the_camera_is_not_the_persons(motion: str, speed: float, camera: str) -> None:
    caption, action = said(measured(render(motion, speed)))
    assert action == "holding still"
    assert caption == f"An upper-body video of a person holding still, while the camera {camera}."


def test_a_mirrored_clip_swaps_left_and_right() -> None:
    columns = measured(render("left", 5))
    rows = np.array(columns["face_motion"])
    rows[:, [0, 3, 6, 9]] *= -1
    columns["face_motion"] = rows.tolist()
    columns["face_boxes"] = [[512 - x1, y0, 512 - x0, y1] for x0, y0, x1, y1 in columns["face_boxes"]]
    assert said(columns)[1] == "moving to the right"


# Pattern of the caption; beside it, what a person sees in the 3.75 seconds.
REAL = {
    "driving_d6.mp4": r"A close-up video of a person talking\.",  # makes faces without a pause, mouth wide open
    "driving_d9.mp4": r"A close-up .* the head.*",  # rocks the head from side to side, pouts, then smiles
    "driving_d10.mp4": r"A close-up .* person (talking|moving the mouth|moving slightly)\.",  # says something
    "driving_d11.mp4": r"A close-up .* talking while moving the head from side to side.* vigorously\.",  # just so
    "driving_d12.mp4": r"A head-and-shoulders .* from side to side.* vigorously\.",  # swings about
    "driving_d14.mp4": r"A close-up .* person (holding still|moving the mouth)\.",  # eyes move, a smile goes
    "driving_d18.mp4": r"A close-up .* person (talking|moving the mouth)\.",  # opens the mouth wide, twice
    "driving_d19.mp4": r"A close-up .* person (talking|moving the mouth)\.",  # smiles, frowns, smirks
    "driving_d20.mp4": r"A head-and-shoulders .* person talking(, while the camera .*)?\.",  # sings
    "source_s13.mp4": r"A full-body .* person moving (up and down|from side to side).* quickly\.",  # dances
    # stands, fingers a stalk; the camera goes around her
    "source_s20.mp4": r"An upper-body .* person holding still, while the camera moves.*\.",
    # smiles, begins to speak; the camera sinks
    "source_s32.mp4": r"A head-and-shoulders .* person moving the mouth, while the camera moves down\.",
}


@pytest.mark.slow
def test_real_clips(shared: Path) -> None:
    spec = FrameSpec()
    face, motion = Dlib(DlibParams(), spec), Dis(DisParams(), spec)
    face.setup("cpu")
    found = {}
    for name in REAL:
        sample = real(shared / "clips" / name)
        columns = {**sample.columns}
        for engine in (face, Square(SquareParams(), spec), motion):
            columns |= columns_of(engine.measure([Sample(sample.clip, columns, sample.frames)])[0])
        found[name] = said(columns)[0]
    assert {name: caption for name, caption in found.items() if not re.fullmatch(REAL[name], caption)} == {}
