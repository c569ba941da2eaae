"""The balanced sampler: even over M, pure, sharded without overlap, resumable."""

from __future__ import annotations

import numpy as np

from training.draws import BalancedBatches


def flat(batches: BalancedBatches, steps: range) -> list[tuple[int, int]]:
    return [(draw.row, draw.number) for step in steps for draw in batches.at(step)]


def test_the_drawn_histogram_is_even_over_0_to_20_and_no_clip_repeats_too_often() -> None:
    rng = np.random.default_rng(0)
    m = np.minimum(rng.gamma(2.0, 3.0, 20_000), 19.999)
    bins = m.astype(int)
    counts = np.bincount(bins, minlength=20)
    weights = (len(m) / 20 / counts)[bins]
    cap = 8.0
    weights = np.minimum(weights, cap)
    batches = BalancedBatches(weights, batch=100, seed=3)
    rows = np.array([row for row, _ in flat(batches, range(200))])
    before, after = counts, np.bincount(bins[rows], minlength=20)
    print(f"before: {before.tolist()}\nafter:  {after.tolist()}")
    assert before.max() / before.min() > 10
    capped = counts * cap < len(m) / 20
    assert after[~capped].max() / after[~capped].min() < 1.15
    assert np.bincount(rows).max() <= np.ceil(cap * len(m) / weights.sum())


def test_ranks_share_the_draws_of_one_process_without_overlap() -> None:
    weights = np.arange(1.0, 8.0)
    alone = flat(BalancedBatches(weights, batch=6, seed=1), range(5))
    ranks = [flat(BalancedBatches(weights, batch=2, seed=1, rank=r, world=3), range(5)) for r in range(3)]
    assert sorted(draw for rank in ranks for draw in rank) == sorted(alone)
    numbers = [number for rank in ranks for _, number in rank]
    assert sorted(numbers) == list(range(30))


def test_starting_in_mid_epoch_gives_what_an_uninterrupted_run_gives() -> None:
    weights = np.arange(1.0, 12.0)
    whole = iter(BalancedBatches(weights, batch=3, seed=1))
    expected = [next(whole) for _ in range(12)]
    resumed = iter(BalancedBatches(weights, batch=3, seed=1, start=7))
    assert [next(resumed) for _ in range(5)] == expected[7:]


def test_epochs_and_seeds_differ() -> None:
    weights = np.ones(50)
    batches = BalancedBatches(weights, batch=50, seed=1)
    first, second = ([d.row for d in batches.at(step)] for step in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first != [d.row for d in BalancedBatches(weights, batch=50, seed=2).at(0)]
