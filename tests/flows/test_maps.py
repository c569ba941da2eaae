"""The stored flow and the weights of Eq. 9."""

from __future__ import annotations

import numpy as np
import pytest

from flows.maps import loss_weights, stored_maps


def test_the_foreground_peaks_at_255_whatever_its_speed() -> None:
    magnitudes = np.zeros((3, 64, 32), np.float32)
    magnitudes[:, 8:16, 16:24] = np.array([1, 4, 30], np.float32)[:, None, None]
    maps, maxima = stored_maps(magnitudes)
    assert maps.dtype == np.uint8
    assert maps.shape == (3, 8, 4)
    assert maxima.dtype == np.float32
    assert maxima.tolist() == [1, 4, 30]
    for pair in maps:
        assert pair[1, 2] == 255
        assert pair.sum() == 255


def test_cells_hold_the_mean_of_their_area_and_the_background_is_left_out() -> None:
    magnitudes = np.full((1, 16, 16), 0.5, np.float32)  # under the mean: background
    magnitudes[0, :8, :2] = 8  # a quarter of the first cell
    magnitudes[0, 8:, 8:] = 4
    maps, maxima = stored_maps(magnitudes)
    assert maxima.tolist() == [8]
    assert maps.tolist() == [[[64, 0], [0, 128]]]  # 255 / 4 and 255 / 2, rounded to the even neighbour


def test_still_and_uniform_pairs() -> None:
    magnitudes = np.zeros((2, 16, 16), np.float32)
    magnitudes[1] = 3
    maps, maxima = stored_maps(magnitudes)
    assert maxima.tolist() == [0, 3]
    assert maps[0].max() == 0
    assert maps[1].min() == 255


def test_weights_of_eq_9_and_the_last_map_is_repeated() -> None:
    maps = np.zeros((3, 2, 2), np.uint8)
    maps[2] = [[0, 127], [153, 255]]
    weights = loss_weights(maps, frames=4, latent_size=2)
    assert weights.dtype == np.float32
    assert weights[:2].tolist() == np.ones((2, 2, 2)).tolist()
    np.testing.assert_allclose(weights[2], [[1, 1], [1.1, 1.5]], rtol=1e-6)
    assert weights[3].tolist() == weights[2].tolist()


def test_without_flow_every_weight_is_one() -> None:
    assert loss_weights(None, frames=2, latent_size=3).tolist() == np.ones((2, 3, 3)).tolist()


def test_maps_of_another_grid_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"shape \(15, 64, 64\), but 8 frames on a latent grid of 64 need \(7, 64, 64\)"
    ):
        loss_weights(np.zeros((15, 64, 64), np.uint8), frames=8, latent_size=64)
