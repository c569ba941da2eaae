"""Known answers of Eq. 6 and 7 on true flow fields."""

from __future__ import annotations

import numpy as np
import pytest

from flows.intensity import capped, foreground, foreground_means, magnitude, motion_intensity

SIZE = 64


def uniform(dx: float, dy: float, pairs: int = 15) -> np.ndarray:
    return np.broadcast_to(np.array([dx, dy], np.float32), (pairs, SIZE, SIZE, 2))


def moving_square(k: float, pairs: int = 15) -> np.ndarray:
    """A square of a quarter of the side moves k px to the right over a still ground."""
    flow = np.zeros((pairs, SIZE, SIZE, 2), np.float32)
    flow[:, 8:24, 20:36, 0] = k
    return flow


@pytest.mark.parametrize("k", [0.1, 1, 3.3, 15, 40])
@pytest.mark.parametrize("towards", [(1, 0), (0, -1), (0.6, 0.8)])
def test_a_uniform_shift_by_k_gives_k(k: float, towards: tuple[float, float]) -> None:
    flow = uniform(k * towards[0], k * towards[1])
    assert motion_intensity(magnitude(flow)) == pytest.approx(k, rel=1e-6)


def test_stillness_gives_exactly_zero() -> None:
    assert motion_intensity(magnitude(uniform(0, 0))) == 0


@pytest.mark.parametrize("k", [0.1, 1, 7, 15])
def test_a_region_that_moves_by_k_over_a_still_ground_gives_k(k: float) -> None:
    assert motion_intensity(magnitude(moving_square(k))) == pytest.approx(k, rel=1e-6)


def test_eq_6_by_hand() -> None:
    # |f| = 0, 1, 2, 5: the mean is 2, only 5 lies above it.
    flow = np.zeros((1, 2, 2, 2), np.float32)
    flow[0, ..., 1] = [[0, 1], [-2, 5]]
    assert foreground(magnitude(flow)).tolist() == [[[False, False], [False, True]]]
    assert foreground_means(magnitude(flow)).tolist() == [5.0]


def test_eq_7_is_the_mean_over_the_pairs_not_over_the_frames() -> None:
    flow = np.concatenate([moving_square(2, pairs=3), moving_square(6, pairs=1), uniform(0, 0, pairs=1)])
    assert foreground_means(magnitude(flow)).tolist() == [2, 2, 2, 6, 0]
    assert motion_intensity(magnitude(flow)) == pytest.approx(12 / 5)


def test_width_and_height_do_not_change_places() -> None:
    flow = np.zeros((2, 8, 24, 2), np.float32)
    flow[:, :4, :, 0] = 3
    assert magnitude(flow).shape == (2, 8, 24)
    assert foreground(magnitude(flow))[0].all(axis=1).tolist() == [True] * 4 + [False] * 4


def test_a_cap_of_20() -> None:
    assert [capped(m) for m in (0.0, 19.5, 20.0, 53.0)] == [0.0, 19.5, 20.0, 20.0]
