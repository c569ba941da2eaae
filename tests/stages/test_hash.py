"""The hash of copies, of their mirror images, of other takes, and of stills."""

import numpy as np
import pytest

from stages.hash import MIRROR, perceptual_hash


def blobs(seed: int, moves: int, shape: tuple[int, int] = (128, 192), frames: int = 16) -> np.ndarray:
    """A smooth ground that `seed` draws, and two blobs before it whose ways `moves` draws: uint8 (n, h, w, 3)."""
    h, w = shape
    y, x = np.mgrid[:h, :w] / [[[h]], [[w]]]
    ground = np.random.default_rng(seed).normal(size=(4, 4))
    picture = 110 + 25 * sum(
        ground[i, j] * np.cos(np.pi * i * y) * np.cos(np.pi * j * x) for i in range(4) for j in range(4)
    )
    ways = np.cumsum(np.random.default_rng(moves).normal(0, 0.05, (frames, 2, 2)), axis=0)
    out = []
    for way in ways:
        frame = picture.copy()
        for place, level in zip(way + np.array([[0.4, 0.35], [0.6, 0.65]]), (80, -60), strict=True):
            frame += level * np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / 0.01)
        out.append(np.clip(frame, 0, 255))
    return np.repeat(np.stack(out)[..., None], 3, axis=-1).astype(np.uint8)


def equal(a: np.ndarray, b: np.ndarray) -> float:
    return 1 - int(np.bitwise_count(perceptual_hash(a) ^ perceptual_hash(b)).sum()) / 320


def test_a_copy_hashes_alike_at_any_size_brightness_and_with_noise() -> None:
    clip = blobs(0, 1)
    noisy = np.clip(clip + np.random.default_rng(9).normal(0, 6, clip.shape), 0, 255).astype(np.uint8)
    assert equal(clip, blobs(0, 1, (256, 384))) > 0.98
    assert equal(clip, (clip * 0.8).astype(np.uint8)) > 0.97
    assert equal(clip, noisy) > 0.95
    assert equal(clip, clip[:, 2:-2, 3:-3]) > 0.9


def test_other_motion_before_the_same_ground_and_another_ground_hash_unlike() -> None:
    clip = blobs(0, 1)
    assert max(equal(clip, blobs(0, moves)) for moves in range(2, 12)) < 0.8
    assert max(equal(clip, blobs(seed, seed + 1)) for seed in range(1, 11)) < 0.75


def test_the_mirror_image_has_the_hash_with_the_odd_columns_turned() -> None:
    clip = blobs(3, 4)
    mirrored = perceptual_hash(np.ascontiguousarray(clip[:, :, ::-1]))
    assert int(np.bitwise_count(perceptual_hash(clip) ^ mirrored ^ MIRROR).sum()) <= 3


@pytest.mark.parametrize("seed", range(3))
def test_a_still_is_told_by_all_words(seed: int) -> None:
    still = np.repeat(blobs(seed, 0)[:1], 16, axis=0)
    other = np.repeat(blobs(seed + 10, 0)[:1], 16, axis=0)
    words = perceptual_hash(still)
    assert words.dtype == np.uint64
    assert len(set(words.tolist())) == 5
    assert equal(still, other) < 0.75
