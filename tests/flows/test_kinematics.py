"""Known answers of the ten numbers on true flow fields."""

from __future__ import annotations

import numpy as np
import pytest

from flows.camera import lattice, similarity_field
from flows.kinematics import COLUMNS, MOUTH, boxes_per_frame, face_kinematics

HEIGHT, WIDTH = 256, 384
BOX = np.array([100, 60, 180, 150], np.float64)
BOXES = np.tile(BOX, (3, 1))
UNKNOWN = np.full((2, 4), np.nan)


def field(similarity: tuple[float, float, float, float], centre: tuple[float, float]) -> np.ndarray:
    """One similarity as the flow of two pairs."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    points = np.stack([x.ravel(), y.ravel()], axis=-1) - centre
    flow = similarity_field(np.array(similarity), points).reshape(1, HEIGHT, WIDTH, 2)
    return np.repeat(flow, 2, axis=0).astype(np.float32)


def row(flow: np.ndarray, camera: np.ndarray = UNKNOWN, boxes: np.ndarray = BOXES) -> dict[str, float]:
    rows = face_kinematics(flow, boxes, camera)
    assert rows is not None
    assert rows.shape == (2, 10)
    assert rows.dtype == np.float32
    return dict(zip(COLUMNS, rows[1].tolist(), strict=True))


def test_the_order_of_the_columns_is_fixed() -> None:
    assert COLUMNS == (
        "dx", "dy", "divergence", "roll", "mouth", "cheek", "cam_dx", "cam_dy", "cam_zoom", "cam_roll",
    )  # fmt: skip


def test_the_faces_own_motion() -> None:
    own = row(field((3, -2, 0.05, 0.1), centre=(140, 105)))
    expected = {"dx": 3, "dy": -2, "divergence": 0.05, "roll": 0.1, "mouth": 0, "cheek": 0, "cam_dx": 0, "cam_roll": 0}
    assert {k: own[k] for k in expected} == pytest.approx(expected, abs=1e-4)


def test_roll_is_positive_where_the_top_of_the_head_goes_right() -> None:
    flow = np.zeros((2, HEIGHT, WIDTH, 2), np.float32)
    flow[..., 0] = (105 - np.arange(HEIGHT))[:, None] * 0.05  # above the middle to the right, below to the left
    flow[..., 1] = (np.arange(WIDTH) - 140) * 0.05
    assert row(flow)["roll"] == pytest.approx(0.05, abs=1e-4)


def test_under_a_moving_camera_a_still_person_is_still() -> None:
    camera = np.tile([4.0, 1.0, 0.02, -0.01], (2, 1))
    own = row(field((4, 1, 0.02, -0.01), centre=(WIDTH / 2, HEIGHT / 2)), camera)
    assert [own[k] for k in COLUMNS[:6]] == pytest.approx([0] * 6, abs=1e-4)
    assert [own[k] for k in COLUMNS[6:]] == pytest.approx([4, 1, 0.02, -0.01], abs=1e-6)


def test_a_mouth_that_opens_is_no_motion_of_the_head() -> None:
    flow = field((1, 0, 0, 0), centre=(140, 105))
    x0, y0, x1, y1 = (BOX[[0, 1, 0, 1]] + np.array(MOUTH) * 90).astype(int)
    flow[:, y0:y1, x0:x1, 1] += 4
    own = row(flow)
    assert own["mouth"] > 2
    assert own["cheek"] < 0.5
    assert own["dx"] == pytest.approx(1, abs=0.05)
    assert abs(own["dy"]) < 0.25


def test_still_ground_in_the_corner_of_the_box_hardly_pulls() -> None:
    flow = field((6, 0, 0, 0), centre=(140, 105))
    flow[:, 60:100, 100:120] = 0
    assert row(flow)["dx"] == pytest.approx(6, abs=0.5)


def test_what_the_corners_of_the_box_show_does_not_count() -> None:
    flow = field((6, 0, 0, 0), centre=(140, 105))
    flow[:, 60:72, 100:110] = flow[:, 60:72, 170:180] = 0
    own = row(flow)
    assert [own["dx"], own["divergence"], own["cheek"]] == pytest.approx([6, 0, 0], abs=1e-4)


def test_boxes_between_the_looked_at_frames() -> None:
    boxes = boxes_per_frame([1, 3], [[0, 0, 10, 20], [4, 8, 14, 28]], 5)
    assert boxes.tolist() == [[0, 0, 10, 20], [0, 0, 10, 20], [2, 4, 12, 24], [4, 8, 14, 28], [4, 8, 14, 28]]


def test_a_box_is_clipped_to_the_picture_and_none_outside_it() -> None:
    flow = field((3, 0, 0, 0), centre=(0, 0))
    over = np.tile([WIDTH - 60.0, -20, WIDTH + 20, 60], (3, 1))
    assert row(flow, boxes=over)["dx"] == pytest.approx(3, abs=1e-5)
    assert face_kinematics(flow, over + np.array([100, 0, 100, 0]), UNKNOWN) is None


def test_the_lattice_covers_the_picture_in_x_and_y() -> None:
    points = lattice(HEIGHT, WIDTH)
    assert points.max(axis=0).tolist() == [WIDTH - 8, HEIGHT - 8]
    assert len(points) == (HEIGHT // 16) * (WIDTH // 16)
