"""Known answers of the camera's part of true flow fields."""

from __future__ import annotations

import numpy as np
import pytest

from flows.camera import camera_motion, camera_similarities, lattice, similarity_field

SIZE = 512
PAIRS = 3
BOX = np.array([200, 120, 310, 250], np.float64)
BOXES = np.tile(BOX, (PAIRS + 1, 1))
Similarity = tuple[float, float, float, float]


@pytest.fixture(scope="module")
def wall() -> np.ndarray:
    """Textured frames."""
    import cv2

    noise = np.random.default_rng(0).integers(0, 256, (SIZE // 4, SIZE // 4, 3), dtype=np.uint8)
    return np.stack([cv2.resize(noise, (SIZE, SIZE))] * (PAIRS + 1))


def camera_flow(similarity: Similarity) -> np.ndarray:
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    points = np.stack([x.ravel(), y.ravel()], axis=-1) - SIZE / 2
    flow = similarity_field(np.array(similarity), points).reshape(1, SIZE, SIZE, 2)
    return np.repeat(flow, PAIRS, axis=0).astype(np.float32)


def move_person(flow: np.ndarray, dx: float) -> np.ndarray:
    """Head and shoulders around BOX move by dx px."""
    flow = flow.copy()
    flow[:, 90:260, 175:335, 0] = dx
    flow[:, 260:, 120:400, 0] = dx
    return flow


def measure(flow: np.ndarray, images: np.ndarray, boxes: np.ndarray | None = BOXES) -> tuple[np.ndarray, float | None]:
    similarities = camera_similarities(flow, images, boxes)
    return similarities, camera_motion(similarities, SIZE, SIZE)


@pytest.mark.parametrize("k", [0.2, 1, 4, 15])
def test_a_pan_by_k_is_a_camera_motion_of_k(k: float, wall: np.ndarray) -> None:
    for person in (k, 0.0, -k):
        similarities, motion = measure(move_person(camera_flow((k, 0, 0, 0)), person), wall)
        assert similarities == pytest.approx(np.tile([k, 0, 0, 0], (PAIRS, 1)), abs=1e-3)
        assert motion == pytest.approx(k, rel=1e-3)


@pytest.mark.parametrize("k", [1, 5, 15])
def test_a_person_who_moves_over_a_still_ground_is_no_camera_motion(k: float, wall: np.ndarray) -> None:
    _, motion = measure(move_person(camera_flow((0, 0, 0, 0)), k), wall)
    assert motion == pytest.approx(0, abs=1e-4)


def test_zoom_and_roll_about_the_middle_of_the_picture(wall: np.ndarray) -> None:
    similarities, motion = measure(move_person(camera_flow((1, -2, 0.03, 0.02)), 0), wall)
    assert similarities == pytest.approx(np.tile([1, -2, 0.03, 0.02], (PAIRS, 1)), abs=1e-3)
    field = similarity_field(np.array([1, -2, 0.03, 0.02]), lattice(SIZE, SIZE) - SIZE / 2)
    assert motion == pytest.approx(np.linalg.norm(field, axis=-1).mean(), rel=1e-3)


def test_more_body_than_ground_outside_the_box_is_still_no_camera_motion(wall: np.ndarray) -> None:
    flow = camera_flow((0, 0, 0, 0))
    flow[:, :, 180:, 0] = 6  # 65 % of the picture goes along, the ground at the left stays
    _, motion = measure(flow, wall, boxes=None)
    assert motion == pytest.approx(0, abs=1e-4)


def test_a_black_bar_at_the_edge_does_not_hold_a_pan_still(wall: np.ndarray) -> None:
    images, flow = wall.copy(), camera_flow((5, 0, 0, 0))
    images[:, :, :200] = 0
    flow[:, :, :200] = 0
    _, motion = measure(flow, images)
    assert motion == pytest.approx(5, rel=1e-3)


def test_a_plain_ground_does_not_show_the_camera(wall: np.ndarray) -> None:
    similarities, motion = measure(camera_flow((5, 0, 0, 0)), np.full_like(wall, 128))
    assert np.isnan(similarities).all()
    assert motion is None


def test_a_face_that_fills_the_picture_hides_the_camera(wall: np.ndarray) -> None:
    _, motion = measure(camera_flow((5, 0, 0, 0)), wall, np.tile([40.0, 60, 470, 500], (PAIRS + 1, 1)))
    assert motion is None


def test_ground_that_moves_every_way_agrees_on_no_camera(wall: np.ndarray) -> None:
    flow = np.random.default_rng(1).normal(0, 8, (PAIRS, SIZE, SIZE, 2)).astype(np.float32)
    _, motion = measure(flow, wall)
    assert motion is None


def test_the_mean_is_taken_over_the_pairs_that_are_known() -> None:
    similarities = np.array([[3, 0, 0, 0], [np.nan] * 4, [0, 5, 0, 0]])
    assert camera_motion(similarities, SIZE, SIZE) == pytest.approx(4)
    assert camera_motion(similarities[[0, 1, 1]], SIZE, SIZE) is None


def test_the_same_flow_gives_the_same_camera(wall: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    flow = camera_flow((2, 1, 0.01, 0)) + rng.normal(0, 0.3, (PAIRS, SIZE, SIZE, 2)).astype(np.float32)
    first, _ = measure(flow, wall)
    measure(camera_flow((9, 0, 0, 0)), wall)
    again, _ = measure(flow, wall)
    assert np.array_equal(first, again)
