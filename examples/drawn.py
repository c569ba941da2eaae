"""Drawn portraits: ellipses and lines, shaded so that a face detector takes them for faces."""

from __future__ import annotations

import numpy as np

from examples.people import Portrait

SIDE = 512
CENTRE = (256, 200)  # of the face, px


def drawn(rng: np.random.Generator) -> Portrait:
    """A person with the colours and proportions that `rng` gives."""
    import cv2

    skin, hair = rng.uniform([140, 100, 80], [240, 200, 180]), rng.uniform(10, 120, 3)
    shirt, iris = rng.uniform(20, 235, 3), rng.uniform(20, 90, 3)
    rx, ry, lips = int(rng.uniform(58, 68)), int(rng.uniform(78, 90)), int(rng.uniform(6, 10))
    cx, cy = CENTRE
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    matte = np.zeros((SIDE, SIDE), np.uint8)

    def colour(rgb: np.ndarray) -> list[float]:
        return np.clip(rgb, 0, 255).tolist()

    def arc(
        x: int, y: int, half: tuple[int, int], rgb: np.ndarray, start: int = 0, end: int = 360, width: int = -1
    ) -> None:
        cv2.ellipse(image, (x, y), half, 0, start, end, colour(rgb), width, cv2.LINE_AA)

    def solid(x: int, y: int, half: tuple[int, int], rgb: np.ndarray) -> None:
        arc(x, y, half, rgb)
        cv2.ellipse(matte, (x, y), half, 0, 0, 360, 255, -1, cv2.LINE_AA)

    solid(cx, SIDE + 8, (170, 200), shirt)
    for picture, paint in ((image, colour(0.8 * skin)), (matte, [255.0])):
        cv2.rectangle(picture, (cx - 30, cy + 50), (cx + 30, cy + 140), paint, -1)  # the neck
    solid(cx, cy - 18, (round(1.22 * rx), round(1.2 * ry)), hair)
    solid(cx, cy, (rx, ry), skin)
    arc(cx, cy - 58, (round(0.95 * rx), 34), hair, 180, 360)
    for x in (cx - round(0.42 * rx), cx + round(0.42 * rx)):
        y = cy - 14
        arc(x, y - 2, (18, 13), 0.72 * skin)
        arc(x, y, (13, 7), np.full(3, 245.0))
        arc(x, y, (6, 6), iris)
        arc(x, y - 20, (19, 6), 0.7 * hair, 190, 350, width=5)
    cv2.line(image, (cx - 3, cy - 8), (cx - 9, cy + 24), colour(0.8 * skin), 4, cv2.LINE_AA)
    arc(cx, cy + 26, (15, 6), 0.6 * skin, 0, 180, width=4)
    arc(cx, cy + 50, (24, lips), skin * [0.75, 0.45, 0.45])
    cv2.line(image, (cx - 24, cy + 50), (cx + 24, cy + 50), colour(0.35 * skin), 2, cv2.LINE_AA)

    # Darker towards the sides, as if lit from the front: flat cheeks are no face to a detector.
    across = (np.arange(SIDE) - cx) / rx
    shade = 1 - 0.25 * np.clip(0.8 * across**2, 0, 1)
    image = cv2.GaussianBlur((image * shade[None, :, None]).astype(np.uint8), (0, 0), 1.2)
    return Portrait(
        image,
        (matte / 255).astype(np.float32),
        face=(cx, cy + 4),
        mouth=(cx, cy + 50),
        head=(1.22 * rx, 1.25 * ry),
        zoom=1.15,
    )
