"""Frames, flow and landmarks move together; the cut-out stands on plain ground."""

from __future__ import annotations

import numpy as np
import pytest

from training.faces import Faces, cut_out, view

LANDMARKS = np.array([[[20.0, 20], [40, 20], [30, 30], [22, 40], [38, 40]]])
FACES = Faces(np.array([2]), np.array([[15.0, 10, 45, 50]]), LANDMARKS, size=64)


def marked(points: np.ndarray) -> np.ndarray:
    """A picture with a bright 3 x 3 square at each point."""
    frame = np.zeros((1, 64, 64), np.uint8)
    for x, y in points.round().astype(int):
        frame[0, y - 1 : y + 2, x - 1 : x + 2] = 255
    return frame


@pytest.mark.parametrize(("zoom", "flip"), [(1.0, True), (1.4, False), (1.4, True)])
def test_landmarks_stay_on_what_they_mark(zoom: float, flip: bool) -> None:
    shown = view(marked(LANDMARKS[0]), zoom, flip)[0]
    for x, y in FACES.seen(zoom, flip, 64).landmarks[0]:
        assert shown[int(y - 0.5), int(x - 0.5)] > 100
    assert (shown > 100).sum() < 9 * 5 * zoom**2 * 1.6


def test_a_flip_swaps_left_and_right_landmarks_and_keeps_the_box_ordered() -> None:
    flipped = FACES.seen(1.0, True, 64)
    assert flipped.landmarks[0].tolist() == [[24, 20], [44, 20], [34, 30], [26, 40], [42, 40]]
    assert flipped.boxes.tolist() == [[19, 10, 49, 50]]


def test_scaling_to_another_size() -> None:
    assert FACES.seen(1.0, False, 32).boxes.tolist() == [[7.5, 5, 22.5, 25]]


def test_between_looked_at_frames_faces_move_linearly_and_stay_at_the_ends() -> None:
    faces = Faces(np.array([2, 6]), np.array([[0.0, 0, 10, 10], [8, 4, 18, 14]]), None, 64)
    assert faces.at(3)[0].tolist() == [2, 1, 12, 11]
    assert faces.at(0)[0].tolist() == [0, 0, 10, 10]
    assert faces.at(9.5)[0].tolist() == [8, 4, 18, 14]
    assert faces.at(3)[1] is None
    assert FACES.at(9)[1].tolist() == LANDMARKS[0].tolist()


def test_no_face_found_is_none() -> None:
    assert Faces.of({"face_frames": []}) is None
    assert Faces.of({"face_frames": None}) is None


def test_the_face_is_cut_out_on_white_ground() -> None:
    frame = np.full((64, 64, 3), (10, 20, 30), np.uint8)
    frame[20:40, 30:50] = (200, 100, 50)
    face = cut_out(frame, np.array([30.0, 20, 50, 40]), 48)
    assert face[24, 24].tolist() == [200, 100, 50]
    assert face[0, 0].tolist() == face[47, 47].tolist() == [255, 255, 255]
    assert face[24, 2].tolist() == [10, 20, 30]  # margin inside the ellipse
    at_edge = cut_out(frame, np.array([54.0, 20, 74, 40]), 48)
    assert at_edge[24, 40].tolist() == [255, 255, 255]  # outside of the frame
