import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curation.config import Resample
from curation.resample import bin_weights


def test_bins_are_drawn_evenly_when_no_cap_binds() -> None:
    counts = np.array([10, 0, 5, 15])
    weights = bin_weights(counts, 0, Resample(bins=4, max_repeat=4)).bins
    np.testing.assert_allclose(weights * counts, [10, 0, 10, 10])


def test_a_rare_bin_repeats_no_more_than_the_cap_and_the_rest_shares_what_it_cannot_take() -> None:
    counts = np.array([1, 9, 20])
    weights = bin_weights(counts, 0, Resample(bins=3, max_repeat=2)).bins
    np.testing.assert_allclose(weights * counts, [2, 14, 14])
    assert weights[0] == 2


def test_images_keep_their_natural_share_by_default() -> None:
    weights = bin_weights(np.array([3, 1]), 4, Resample(bins=2))
    assert weights.image == 1.0
    np.testing.assert_allclose(weights.bins * [3, 1], [2, 2])


def test_images_get_the_share_that_is_asked_for() -> None:
    weights = bin_weights(np.array([3, 1]), 4, Resample(bins=2, image_share=0.25, max_repeat=10))
    assert weights.image * 4 == 2
    np.testing.assert_allclose(weights.bins * [3, 1], [3, 3])


def test_only_images_or_only_videos_take_all_the_draws() -> None:
    config = Resample(bins=1, image_share=0.5)
    assert bin_weights(np.array([0]), 7, config).image == 1
    assert bin_weights(np.array([7]), 0, config).bins[0] == 1
    assert bin_weights(np.array([0]), 0, config).image == 0


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30), st.integers(0, 50), st.floats(1, 10))
def test_draws_sum_to_the_clips_and_no_weight_exceeds_the_cap(counts: list[int], images: int, cap: float) -> None:
    array = np.array(counts)
    weights = bin_weights(array, images, Resample(bins=len(counts), max_repeat=cap))
    np.testing.assert_allclose(weights.bins @ array + weights.image * images, array.sum() + images)
    assert (weights.bins <= cap + 1e-9).all()
    uncapped = (
        weights.bins[(array > 0) & (weights.bins < cap - 1e-9)] * array[(array > 0) & (weights.bins < cap - 1e-9)]
    )
    if len(uncapped):
        np.testing.assert_allclose(uncapped, uncapped[0], rtol=1e-9)
