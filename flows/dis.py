"""Dense optical flow by OpenCV's DIS (Kroeger et al. 2016, arXiv 1603.03590)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flows.intensity import foreground_means, magnitude


@dataclass(frozen=True)
class DisSettings:
    """Settings of cv2.DISOpticalFlow; patches are 8 px wide.

    finest_scale: the flow is computed down to 1/2**finest_scale of the picture. patch_stride: px between patches.
    descent: gradient steps per patch and scale. refinement: iterations of the variational refinement on each scale.
    strong_descent: steps for pairs of strong motion instead, or None for the same.
    """

    finest_scale: int
    patch_stride: int
    descent: int
    refinement: int
    strong_descent: int | None = None


# ultrafast, fast and medium are OpenCV's own. On a plain wall under H.264 each descent step lets more patches run away,
# far beyond a slow motion: with medium a pan of 1 px measures as 1.6. With few steps, fast limbs are not reached: a
# dancer loses a quarter of M. So portrait takes few steps where motion is weak and many where it is strong, which the
# ultrafast flow tells well enough. Figures: benchmarks/motion_accuracy.py.
PRESETS: dict[str, DisSettings] = {
    "ultrafast": DisSettings(2, 4, 12, 0),
    "fast": DisSettings(2, 4, 16, 5),
    "medium": DisSettings(1, 3, 25, 5),
    "portrait": DisSettings(1, 3, 4, 12, strong_descent=16),
}
STRONG_PX = 8.0  # Eq. 6 of a pair whose motion is strong


def dis_flow(images: np.ndarray, settings: DisSettings) -> np.ndarray:
    """Flow from each frame to the next.

    images: uint8 RGB (N, h, w, 3). Returns float32 (N-1, h, w, 2), (x, y) in px: what is at (x, y) in frame i is at
    (x, y) + flow[i, y, x] in frame i + 1.

    On one thread, since clips are measured side by side; the result is the same for any number.
    """
    import cv2

    weak = _dis(settings, settings.descent)
    strong = None if settings.strong_descent is None else _dis(settings, settings.strong_descent)
    probe = _dis(PRESETS["ultrafast"], PRESETS["ultrafast"].descent)

    count, height, width, _ = images.shape
    flow = np.empty((count - 1, height, width, 2), np.float32)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        before = cv2.cvtColor(images[0], cv2.COLOR_RGB2GRAY)
        for i in range(count - 1):
            after = cv2.cvtColor(images[i + 1], cv2.COLOR_RGB2GRAY)
            dis = weak
            if strong is not None:
                glance = probe.calc(before, after, None)
                if foreground_means(magnitude(glance[None]))[0] > STRONG_PX:
                    dis = strong
            flow[i] = dis.calc(before, after, None)
            before = after
    finally:
        cv2.setNumThreads(threads)
    return flow


def _dis(settings: DisSettings, descent: int) -> Any:
    import cv2

    dis = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
    dis.setFinestScale(settings.finest_scale)
    dis.setPatchStride(settings.patch_stride)
    dis.setGradientDescentIterations(descent)
    dis.setVariationalRefinementIterations(settings.refinement)
    return dis
