import numpy as np
import pytest

from manifests.sampling import balanced_draw


def test_each_clip_comes_floor_or_ceil_of_its_expected_draws() -> None:
    weights = np.array([0.5, 4.0, 1.25, 0.0, 1.0])
    counts = np.bincount(balanced_draw(weights, 27, seed=3), minlength=5)
    expected = 27 * weights / weights.sum()
    assert counts.sum() == 27
    assert (counts >= np.floor(expected)).all()
    assert (counts <= np.ceil(expected)).all()
    assert counts[3] == 0


def test_same_seed_same_draw_other_seed_other_draw() -> None:
    weights = np.linspace(0.1, 2, 50)
    assert (balanced_draw(weights, 50, 1) == balanced_draw(weights, 50, 1)).all()
    assert (balanced_draw(weights, 50, 1) != balanced_draw(weights, 50, 2)).any()


def test_draws_are_unbiased_over_seeds() -> None:
    weights = np.array([1.0, 2.0, 3.0])
    drawn = np.concatenate([balanced_draw(weights, 4, seed) for seed in range(3000)])
    np.testing.assert_allclose(np.bincount(drawn) / len(drawn), weights / 6, atol=0.01)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0], [np.nan, 1.0], []])
def test_unusable_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="finite, non-negative and not all zero"):
        balanced_draw(np.array(weights), 3, 0)
