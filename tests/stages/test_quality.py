"""Sharpness of known pictures, and of the real clips before and after blurring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data

from stages.frames import FrameSpec
from stages.quality import STAGE, Blur, BlurParams, sharpness
from tests.media import write_video
from tests.stages.samples import columns_of, real, sample, verdict

PORTRAIT = skimage.data.astronaut()
MIN_QUALITY = 0.31


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    import cv2

    return np.ascontiguousarray(cv2.GaussianBlur(image, (0, 0), sigma))


def encoded(image: np.ndarray, path: Path) -> np.ndarray:
    """The picture after H.264 at x264's own quality."""
    import av

    height, width = (side // 2 * 2 for side in image.shape[:2])
    even = image[:height, :width]
    write_video(path, frames=2, size=(width, height), picture=lambda *_: even)
    with av.open(str(path)) as file:
        return next(file.decode(video=0)).to_ndarray(format="rgb24")


def test_a_picture_without_detail_has_no_sharpness() -> None:
    assert sharpness(np.full((64, 80, 3), 90, np.uint8), 11) == 0.0


def test_sharpness_falls_with_blur() -> None:
    scores = [sharpness(blurred(PORTRAIT, sigma) if sigma else PORTRAIT, 11) for sigma in (0, 1, 2, 3, 5)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(0.60, abs=0.03)
    assert scores[3] < 0.28


def test_only_the_centre_square_counts() -> None:
    wide = np.concatenate([blurred(PORTRAIT, 8), PORTRAIT, blurred(PORTRAIT, 8)], axis=1)
    assert sharpness(wide, 11) == sharpness(PORTRAIT, 11)
    tall = np.concatenate([blurred(PORTRAIT, 8), PORTRAIT, blurred(PORTRAIT, 8)], axis=0)
    assert sharpness(tall, 11) == sharpness(PORTRAIT, 11)


@pytest.mark.parametrize(("position", "frame"), [(0.0, 0), (0.5, 8), (1.0, 15)])
def test_one_frame_is_measured_and_named(position: float, frame: int) -> None:
    images = np.stack([blurred(PORTRAIT, 6)] * 16)
    images[frame] = PORTRAIT
    engine = Blur(BlurParams(position=position), FrameSpec())
    other = sample(np.stack([PORTRAIT, blurred(PORTRAIT, 6)]))
    first, second = (columns_of(result) for result in engine.measure([sample(images), other]))
    assert first == {"quality_score": sharpness(PORTRAIT, 11), "quality_frame": frame}
    assert second["quality_frame"] == round(position)
    assert verdict(STAGE, first, {"min_quality": MIN_QUALITY}) is None


@pytest.mark.parametrize("name", ["driving_d11.mp4", "driving_d14.mp4", "source_s13.mp4", "source_s32.mp4"])
def test_real_clips_part_from_their_blurred_selves(shared: Path, tmp_path: Path, name: str) -> None:
    clean = real(shared / "clips" / name)
    soft = np.stack([encoded(blurred(clean.images()[8], 3), tmp_path / "blurred.mp4")] * 16)
    engine = Blur(BlurParams(), FrameSpec())
    good, bad = (columns_of(result) for result in engine.measure([clean, sample(soft)]))
    assert verdict(STAGE, good, {"min_quality": MIN_QUALITY}) is None
    assert verdict(STAGE, bad, {"min_quality": MIN_QUALITY}) == "quality"
