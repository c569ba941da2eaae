"""Cuts of a video by PySceneDetect, and how sharp it is along the way. Runs in the decoding child."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

SIDE = 192  # longer side that frames are scaled to, pixels
SHARP_FPS = 4.0
MIN_CONTENT = 15.0  # PySceneDetect's default: mean change of hue, saturation and luma that a cut has at least
SETTINGS = f"side {SIDE} content {MIN_CONTENT:g} sharp {SHARP_FPS:g}"


def scaled(width: int, height: int) -> tuple[int, int]:
    """Size of the frames to look at, of a picture of this size."""
    scale = min(1.0, SIDE / max(width, height))
    return max(2, round(width * scale)), max(2, round(height * scale))


def find_shots(
    frames: Iterable[tuple[float, np.ndarray]], fps: float, threshold: float
) -> tuple[list[float], list[float]]:
    """Times of the first frames after cuts, and the variance of the Laplacian every 1 / SHARP_FPS s.

    `frames` gives times in seconds and uint8 RGB pictures, in order. Every cut is told, also of shots of one frame.
    """
    import cv2
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    detector = AdaptiveDetector(adaptive_threshold=threshold, min_scene_len=1, min_content_val=MIN_CONTENT)
    times: list[float] = []
    numbers: set[int] = set()
    sharpness: list[float] = []

    for number, (time, picture) in enumerate(frames):
        times.append(time)
        found = detector.process_frame(FrameTimecode(number, fps), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        numbers |= {cut.frame_num for cut in found}
        if time - times[0] >= len(sharpness) / SHARP_FPS - 1e-6:
            gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
            sharpness.append(float(cv2.Laplacian(gray, cv2.CV_64F).var()))
    if times:
        numbers |= {cut.frame_num for cut in detector.post_process(FrameTimecode(len(times) - 1, fps))}
    return [times[number] for number in sorted(numbers) if 0 < number < len(times)], sharpness


def shrunk(pictures: Iterable[tuple[int, np.ndarray]], seconds: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Times and scaled-down pictures of decoded frames (position, picture)."""
    import cv2

    for position, picture in pictures:
        size = scaled(picture.shape[1], picture.shape[0])
        small = picture if picture.shape[1::-1] == size else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        yield float(seconds[position]), small
