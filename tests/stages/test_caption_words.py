"""What is said of made measurements, which real motion would not give so cleanly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flows.kinematics import COLUMNS
from stages.base import Measured, Sample
from stages.caption import STAGE, Kinematic, KinematicParams, describe
from stages.clip import Clip
from stages.frames import FrameSpec
from tests.stages.samples import columns_of

BOX = [200.0, 140.0, 320.0, 260.0]  # a face 120 px high
GROWING = [[205.0, 145.0, 315.0, 255.0], BOX, BOX, [195.0, 135.0, 325.0, 265.0]]


def made(**given: Any) -> list[list[float]]:
    """15 rows of face_motion; those not given are 0."""
    assert set(given) <= set(COLUMNS)
    return np.stack([np.broadcast_to(given.get(name, 0.0), 15) for name in COLUMNS], axis=-1).tolist()


def words(
    motion: list[list[float]], intensity: float = 5.0, camera: float | None = 0.0, boxes: list[list[float]] = [BOX] * 4
) -> tuple[str, str]:
    return describe("video", motion, boxes, intensity, camera, 512)


def test_one_whom_the_camera_follows_or_circles_holds_still() -> None:
    following = made(dx=-9.0, cam_dx=9.0)
    assert words(following, 9.0, 9.0) == (
        "An upper-body video of a person holding still, while the camera moves left.",
        "holding still",
    )
    assert words(made(dx=-9.0, cam_dx=4.0), 9.0, 4.0)[1] == "moving to the left"


def test_a_steady_path_is_not_the_persons_while_the_camera_is_unknown() -> None:
    motion = made(dx=6.0, dy=-4.0, divergence=0.02, roll=0.02)
    assert words(motion, camera=None)[1] == "holding still"
    assert words(motion, camera=0.0, boxes=GROWING)[1] == "coming closer and moving up and to the right"


def test_a_slow_sway_is_not_the_persons_while_the_camera_is_unknown() -> None:
    sway = made(dx=[6.0] * 5 + [-6.0] * 5 + [6.0] * 5)
    quick = made(dx=[15.0, 15.0, -15.0, -15.0] * 3 + [15.0] * 3)
    assert words(sway, camera=0.0)[1] == "moving the head from side to side"
    assert words(sway, camera=None)[1] == "holding still"
    assert words(quick, camera=None)[1] == "moving the head from side to side"


def test_size_changes_where_flow_and_boxes_agree() -> None:
    assert words(made(divergence=0.02), boxes=GROWING)[1] == "coming closer"
    assert words(made(divergence=-0.02), boxes=GROWING[::-1])[1] == "moving away"
    assert words(made(divergence=-0.02), boxes=GROWING)[1] == "holding still"
    assert words(made(divergence=0.02))[1] == "holding still"
    zoom = made(cam_zoom=0.02)
    assert words(zoom, boxes=GROWING)[0] == "An upper-body video of a person holding still, while the camera zooms in."


def test_pairs_without_a_known_camera_do_not_count_while_it_moves() -> None:
    known = [True] * 10 + [False] * 5
    motion = made(dx=np.where(known, 0.0, 12.0), cam_dx=np.where(known, 12.0, 0.0))
    assert words(motion, 12.0, 12.0)[1] == "holding still"


def test_strength_is_that_of_the_motion_which_the_camera_does_not_explain() -> None:
    nod = made(dy=[8.0, -8.0] * 7 + [8.0])
    assert words(nod, 2.9)[1] == "nodding slightly"
    assert words(nod, 3.0)[1] == "nodding"
    assert words(nod, 12.0)[1] == "nodding vigorously"
    assert words(nod, 12.0, 9.5)[1] == "nodding slightly"
    assert words(nod, 40.0, None)[1] == "nodding"  # 8 px a step on the screen: the rest may be the camera's


def test_one_who_fidgets_moves_slightly() -> None:
    fidget = made(dy=[2.0, -2.0] * 7 + [2.0])
    assert words(fidget, camera=None)[1] == "moving slightly"
    assert words(made(dy=[1.0, -1.0] * 7 + [1.0]), camera=None)[1] == "holding still"
    shaken = made(dy=[2.0, -2.0] * 7 + [2.0], cam_dy=[-8.0, 8.0] * 7 + [-8.0])
    assert words(shaken, 8.0, 8.0) == (
        "An upper-body video of a person holding still, while the camera moves about.",
        "holding still",
    )


def test_two_things_at_once() -> None:
    talk = {"mouth": 4.0, "cheek": 1.0}
    nod = {"dy": [8.0, -8.0] * 7 + [8.0]}
    assert words(made(**talk, **nod))[1] == "talking while nodding"
    assert words(made(**nod, divergence=0.02), boxes=GROWING)[1] == "coming closer and nodding"
    shake_too = made(**nod, dx=[7.0, -7.0] * 7 + [7.0])
    assert words(shake_too)[1] == "nodding and shaking the head"
    by_product = made(**nod, dx=[2.0, -2.0] * 7 + [2.0])
    assert words(by_product)[1] == "nodding"


def test_a_head_that_tilts_takes_the_face_along_and_a_body_that_sways_the_tilt() -> None:
    turn = np.array([0.1, -0.1] * 7 + [0.1])
    assert words(made(roll=turn, dx=100 * turn))[1] == "tilting the head from side to side"
    assert words(made(roll=turn, dx=200 * turn))[1] == "moving the head from side to side"
    assert words(made(roll=0.02, dx=1.5))[1] == "tilting the head to the right"
    assert words(made(roll=0.02, dx=4.0))[1] == "moving to the right and tilting the head to the right"


@pytest.mark.parametrize(
    ("mouth", "cheek", "steps", "expected"),
    [
        (4.0, 1.0, 8, "talking"),
        (4.0, 1.0, 7, "moving the mouth"),
        (4.0, 1.0, 3, "moving the mouth"),
        (4.0, 1.0, 2, "holding still"),
        (4.0, 3.5, 15, "holding still"),  # the whole face is warped, as by a turn of the head
        (1.1, 0.1, 15, "holding still"),  # less than a hundredth of the face
    ],
)
def test_a_mouth_that_moves(mouth: float, cheek: float, steps: int, expected: str) -> None:
    rows = made(mouth=[mouth] * steps + [0.1] * (15 - steps), cheek=cheek)
    assert words(rows)[1] == expected


def test_flow_does_not_tell_the_mouth_of_a_small_face() -> None:
    rows = made(mouth=4.0, cheek=0.5)
    assert describe("video", rows, [[220, 20, 280, 80]], 5.0, 0.0, 512)[1] == "holding still"
    assert describe("video", rows, [[200, 20, 290, 110]], 5.0, 0.0, 512)[1] == "talking"


def test_an_image_holds_still() -> None:
    assert describe("image", made(), [BOX], 0.0, 0.0, 512) == ("An upper-body picture of a person.", "holding still")
    assert describe("image", None, None, 0.0, 0.0, 512) == ("A portrait picture of a person.", "holding still")


@pytest.mark.parametrize(
    ("intensity", "camera", "action"),
    [(0.2, 0.0, "holding still"), (6.0, 0.5, "moving"), (6.0, 5.5, "holding still"), (6.0, None, "moving")],
)
def test_without_a_face_only_whether_something_moves(intensity: float, camera: float | None, action: str) -> None:
    caption = f"A portrait video of a person {action}."
    assert describe("video", None, None, intensity, camera, 512) == (caption, action)


VOCABULARY = (
    "a an about and away back camera close-up closer coming down forth from full-body head head-and-shoulders holding "
    "in left mouth moves moving nodding of out person quickly right shaking side slightly slowly still talking the "
    "tilting to up upper-body vigorously video while zooms"
)


@given(
    arrays(np.float64, (15, 10), elements=st.floats(-60, 60)),
    st.floats(0, 80),
    st.none() | st.floats(0, 30),
    st.floats(30, 300),
)
def test_no_measurement_makes_it_say_what_it_cannot_know(
    motion: np.ndarray, intensity: float, camera: float | None, height: float
) -> None:
    caption, action = describe("video", motion.tolist(), [[150, 40, 300, 40 + height]], intensity, camera, 512)
    assert set(caption.lower().rstrip(".").replace(",", "").split()) <= set(VOCABULARY.split())
    assert f" person {action}" in caption
    assert action.split()[0].endswith("ing")


def test_the_engine_answers_in_order() -> None:
    samples = []
    for kind, rows in (("video", made(dx=4.0)), ("image", made()), ("video", made(dx=-4.0))):
        columns = {"face_motion": rows, "face_boxes": [BOX], "motion_intensity": 4.0, "camera_motion": 0.0}
        samples.append(Sample(Clip("s", "x", kind, "1"), columns))  # type: ignore[arg-type]
    engine = Kinematic(KinematicParams(), FrameSpec())
    engine.setup("cpu")
    found = engine.measure(samples)
    assert [columns_of(one)["action"] for one in found] == [
        "moving to the right",
        "holding still",
        "moving to the left",
    ]
    assert all(isinstance(one, Measured) and set(one.columns) == {f.name for f in STAGE.fields} for one in found)


def test_without_adverbs_the_phrase_does_not_tell_the_speed() -> None:
    columns = {"face_motion": made(dx=14.0), "face_boxes": [BOX], "motion_intensity": 14.0, "camera_motion": 0.0}
    sample = Sample(Clip("s", "x", "video", "1"), columns)
    for adverbs, action in ((True, "moving to the right quickly"), (False, "moving to the right")):
        engine = Kinematic(KinematicParams(adverbs=adverbs), FrameSpec())
        assert columns_of(engine.measure([sample])[0])["action"] == action
