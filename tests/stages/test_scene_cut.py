"""Cuts are found; moving people, pans, zooms, flashes and changing light are none. On the real clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from curation.profiles import COMMON_THRESHOLDS
from stages.base import Sample
from stages.clip import Clip
from stages.decode import Decoder
from stages.frames import Frames, FrameSpec
from stages.scene_cut import STAGE, grey_squares, largest_cut

LIMIT = COMMON_THRESHOLDS["max_cut_score"]
STEP = 6


@pytest.fixture(scope="module")
def clips(shared: Path) -> dict[str, np.ndarray]:
    """The first seconds of each real clip at 4 fps, uint8 RGB (up to 32, h, w, 3), shorter side 256."""
    found = {}
    with Decoder(60) as decoder:
        for path in sorted((shared / "clips").glob("*.mp4")):
            header = decoder.header(str(path), "video")
            assert header.duration_s is not None
            count = min(32, int(header.duration_s * 4))
            spec = FrameSpec(count=count, size=256, window="first")
            found[path.stem] = decoder.frames(str(path), "video", spec, header).images
    return found


def windows(frames: np.ndarray) -> list[np.ndarray]:
    return [frames[start : start + 16] for start in range(0, max(1, len(frames) - 15), STEP)]


def test_no_window_of_a_real_clip_has_a_cut(clips: dict[str, np.ndarray]) -> None:
    scores = {name: [largest_cut(grey_squares(w))[0] for w in windows(frames)] for name, frames in clips.items()}
    assert sum(map(len, scores.values())) >= 25
    assert max(map(max, scores.values())) < LIMIT, scores


def test_every_splice_of_two_clips_is_found_where_it_is(clips: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(7)
    squares = {name: grey_squares(frames) for name, frames in clips.items()}
    names = list(squares)
    for index, name in enumerate(names):
        other = names[(index + 1 + int(rng.integers(len(names) - 1))) % len(names)]
        place = int(rng.integers(1, 12))
        spliced = np.concatenate([squares[name][:place], squares[other][: 16 - place]])
        score, frame = largest_cut(spliced)
        assert score > LIMIT, (name, other, place, score)
        assert frame == place


def brighter(frame: np.ndarray) -> np.ndarray:
    return np.clip(frame * 1.8 + 60.0, 0, 255).astype(np.uint8)


def dimmed(frame: np.ndarray) -> np.ndarray:
    return (frame * 0.35).astype(np.uint8)


@pytest.mark.parametrize(
    "change", [lambda f: [*f[:7], brighter(f[7]), *f[8:]], lambda f: [*f[:8], *map(dimmed, f[8:])]]
)
def test_flashes_and_lamps_are_no_cuts(
    clips: dict[str, np.ndarray], change: Callable[[np.ndarray], list[np.ndarray]]
) -> None:
    for name, frames in clips.items():
        score, _ = largest_cut(grey_squares(np.stack(change(frames[:12]))))
        assert score < LIMIT, (name, score)


def test_a_fast_pan_and_a_zoom_are_no_cuts(clips: dict[str, np.ndarray]) -> None:
    still = clips["source_s32"][0]  # 455 x 256
    offsets = [0, 4, 10, 50, 100, 150, 190, 196, 198]  # up to 50 of 256 pixels a step
    pan = np.stack([still[:, x : x + 256] for x in offsets])
    assert largest_cut(grey_squares(pan))[0] < LIMIT
    sides = [256, 250, 240, 225, 205, 180, 160, 150]
    zoom = np.stack([cv2.resize(still[256 - s :, :s], (256, 256)) for s in sides])
    assert largest_cut(grey_squares(zoom))[0] < LIMIT


def test_a_still_has_no_score_and_plain_frames_have_zero() -> None:
    assert largest_cut(np.full((4, 96, 96), 90, np.uint8)) == (0.0, 1)
    frames = Frames(np.zeros((4, 64, 64, 3), np.uint8), np.arange(4.0), (64, 64), "pillow")
    (measured,) = STAGE.engines["block_match"](STAGE.engines["block_match"].Params(), FrameSpec()).measure(
        [Sample(Clip("s", "a.png", "image", ""), frames=frames)]
    )
    assert measured.columns == {"cut_score": None, "cut_frame": None}  # type: ignore[union-attr]
