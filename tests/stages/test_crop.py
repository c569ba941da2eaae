"""The square: always inside the frames, exact in whole pixels, moved only as far as needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.base import Sample
from stages.clip import Clip
from stages.crop import STAGE, Square, SquareParams, native_square, place
from stages.face import Dlib, DlibParams
from stages.frames import Frames, FrameSpec
from stages.picture import View
from tests.stages.samples import columns_of, real, verdict

Box = list[float]


@pytest.mark.parametrize(
    ("low", "high", "start"),
    [
        (300, 500, 200),  # held by the middle already
        (150, 300, 150),  # too far left
        (700, 730, 218),  # too far right: 730 - 512
        (10.6, 40, 10),  # down to a whole pixel
        (700, 730.2, 219),  # up to a whole pixel
        (0, 912, 200),  # does not fit: its middle
        (100, 800, 194),
        (880, 912, 400),  # at the end
    ],
)
def test_place(low: float, high: float, start: int) -> None:
    assert place(912, 512, low, high) == start


@given(
    st.integers(64, 2000),
    st.integers(64, 2000),
    st.sampled_from([64, 512, 520, 768]),
    st.floats(0, 1),
)
def test_the_square_lies_inside_and_maps_back_exactly(width: int, height: int, size: int, where: float) -> None:
    view = View.of(width, min(height, 8 * width) if height > width else max(height, -(-width // 8)), None, size)
    x = round(where * (view.target[0] - size))
    y = round(where * (view.target[1] - size))
    square = native_square(view, x, y)
    assert 0 <= square[0] < square[2] <= view.native[0]
    assert 0 <= square[1] < square[3] <= view.native[1]
    assert square[2] - square[0] == pytest.approx(min(view.native))
    marked = np.zeros((1, view.target[1], view.target[0], 1), np.uint8)
    marked[0, y, x] = marked[0, y + size - 1, x + size - 1] = 1
    seen = Frames(marked, np.zeros(1), view.native, "pyav").through(square)
    assert seen.shape == (1, size, size, 1)
    assert seen[0, 0, 0] == seen[0, -1, -1] == 1


def crop(
    boxes: list[Box] | None,
    width: int = 1280,
    height: int = 720,
    mode: Literal["face", "center"] = "face",
    landmarks: list[list[float]] | None = None,
    part: tuple[float, float, float, float] | None = None,
) -> dict[str, Any]:
    """The stage's columns for face boxes in frame pixels (shorter side 512)."""
    columns = {"width": width, "height": height, "frame_boxes": boxes, "frame_landmarks": landmarks}
    engine = Square(SquareParams(), FrameSpec(crop=mode))
    return columns_of(engine.measure([Sample(Clip("s", "x.mp4", "video", "1", box=part), columns)])[0])


def test_a_face_in_the_middle_leaves_the_centre_square() -> None:
    found = crop([[400, 100, 500, 200]])
    assert found["crop"] == pytest.approx([199 / 0.7111, 0, 199 / 0.7111 + 720, 720], abs=0.1)
    assert found["face_in_crop"] == 1.0
    assert found["face_boxes"] == [[201, 100, 301, 200]]
    assert found["face_landmarks"] is None


def test_a_face_at_the_side_moves_the_square_just_so_far() -> None:
    found = crop([[100, 100, 200, 200], [120, 100, 220, 200]])
    assert found["crop"][0] == pytest.approx(75 * 720 / 512)  # a quarter of its width left of the first face
    assert found["face_boxes"] == [[25, 100, 125, 200], [45, 100, 145, 200]]
    assert found["face_in_crop"] == 1.0


def test_the_centre_square_may_miss_the_face() -> None:
    columns = crop([[100, 100, 200, 200], [174, 100, 274, 200]], mode="center")
    assert columns["crop"][0] == pytest.approx(199 * 720 / 512)
    assert columns["face_in_crop"] == pytest.approx(0.01)
    assert columns["face_boxes"] == [[0, 100, 1, 200], [0, 100, 75, 200]]
    assert verdict(STAGE, columns, {"min_face_in_crop": 0.9}) == "face_out_of_frame"


def test_faces_too_far_apart_for_one_square() -> None:
    found = crop([[0, 100, 100, 200], [810, 100, 910, 200]])
    assert found["crop"][0] == pytest.approx(199 * 720 / 512)
    assert found["face_in_crop"] == 0.0
    assert verdict(STAGE, found, {"min_face_in_crop": 0.9}) == "face_out_of_frame"


def test_height_moves_too() -> None:
    found = crop([[200, 20, 300, 120]], 720, 1280)
    assert found["crop"] == [0.0, 0.0, 720.0, 720.0]
    low = crop([[200, 780, 300, 880]], 720, 1280)
    assert low["crop"] == pytest.approx([0.0, 393 * 720 / 512, 720.0, 393 * 720 / 512 + 720])
    assert low["face_boxes"] == [[200, 387, 300, 487]]


def test_landmarks_go_through_the_same_square() -> None:
    points = [110.0, 120.0, 150.0, 121.0, 130.0, 140.0, 115.0, 160.0, 145.0, 161.0]
    found = crop([[100, 100, 200, 200]], landmarks=[points])
    assert found["face_landmarks"] == [[v - 75 if i % 2 == 0 else v for i, v in enumerate(points)]]


@pytest.mark.parametrize("boxes", [[], None])
def test_without_a_face_it_is_the_centre_square(boxes: list[Box] | None) -> None:
    found = crop(boxes)
    assert found["crop"][0] == pytest.approx(199 * 720 / 512)
    assert found["face_in_crop"] is None
    assert found["face_boxes"] is None
    assert verdict(STAGE, found, {"min_face_in_crop": 0.9}) is None


def test_the_sources_own_box_is_the_picture() -> None:
    found = crop([[0, 0, 90, 90]], 1000, 1000, part=(0.5, 0.0, 1.0, 1.0))  # 500 x 1000, so frames of 512 x 1024
    assert found["crop"] == [0.0, 0.0, 500.0, 500.0]


def test_a_dancer_whose_head_the_centre_square_cuts_off(shared: Path) -> None:
    clip = real(shared / "clips" / "source_s13.mp4")
    detector = Dlib(DlibParams(), FrameSpec())
    detector.setup("cpu")
    columns = {**clip.columns, **columns_of(detector.measure([clip])[0])}
    face, center = (
        columns_of(Square(SquareParams(), FrameSpec(crop=mode)).measure([Sample(clip.clip, columns)])[0])
        for mode in ("face", "center")
    )
    assert face["face_in_crop"] == 1.0
    assert verdict(STAGE, face, {"min_face_in_crop": 0.9}) is None
    assert verdict(STAGE, center, {"min_face_in_crop": 0.9}) == "face_out_of_frame"
    assert clip.frames is not None
    grid = clip.frames.through(face["crop"])
    assert grid.shape == (16, 512, 512, 3)
    for frame, box in zip(columns["face_frames"], face["face_boxes"], strict=True):
        again = detector.detect(np.ascontiguousarray(grid[frame]))
        assert len(again) == 1
        assert abs(again[0].box[0] - box[0]) < 15
        assert abs(again[0].box[3] - box[3]) < 15
