"""Who stands before what: the public-domain portrait that scikit-image carries, and a wall of pebbles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True, eq=False)
class Portrait:
    """A cut-out person.

    image: uint8 RGB (h, w, 3). matte: float32 (h, w), 1 where the person is. Points are (x, y) in the image's pixels:
    middle of the face, middle of the mouth; head: half axes of the ellipse around the head, centred above the face's
    middle by a quarter of its height. zoom: grid pixels per image pixel.
    """

    image: np.ndarray
    matte: np.ndarray
    face: tuple[float, float]
    mouth: tuple[float, float]
    head: tuple[float, float]
    zoom: float


@cache
def astronaut() -> Portrait:
    """The portrait that scikit-image carries, cut out of its background by GrabCut inside a hand-drawn outline."""
    import cv2
    from skimage import data

    image = data.astronaut()

    def fill(mask: np.ndarray, label: int, *points: tuple[int, int]) -> None:
        cv2.fillPoly(mask, [np.array(points)], label)

    # fmt: off
    near = np.zeros(image.shape[:2], np.uint8)
    fill(near, 1, (150, 80), (165, 30), (215, 8), (270, 20), (305, 70), (300, 130), (320, 200), (355, 260), (375, 345),
         (512, 340), (512, 512), (10, 512), (20, 300), (60, 240), (110, 210), (115, 160), (150, 145))
    labels = np.where(near, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    fill(labels, cv2.GC_FGD, (180, 60), (220, 30), (275, 60), (280, 110), (258, 165), (266, 183), (300, 230),
         (340, 300), (352, 400), (480, 420), (490, 512), (50, 512), (50, 300), (90, 250), (135, 250), (120, 200),
         (130, 172), (160, 157), (190, 165), (172, 110))
    fill(labels, cv2.GC_BGD, (152, 142), (166, 128), (178, 131), (182, 143))  # wall between hair and collar
    fill(labels, cv2.GC_BGD, (262, 154), (260, 166), (278, 180), (294, 175), (292, 132), (276, 136))
    # fmt: on
    labels[cv2.dilate(near, np.ones((15, 15), np.uint8)) == 0] = cv2.GC_BGD
    cv2.setRNGSeed(0)
    cv2.grabCut(image, labels, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    person = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(person)
    person = (parts == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])).astype(np.uint8)

    # The last pixels before the outline still hold some of the old wall: take their colour from further inside.
    inside = cv2.erode(person, np.ones((5, 5), np.uint8))
    rim = cv2.dilate(person, np.ones((9, 9), np.uint8)) - inside
    image = cv2.inpaint(image, rim, 3, cv2.INPAINT_TELEA)
    matte = np.clip(1.5 * cv2.GaussianBlur(person.astype(np.float32), (0, 0), 1.3) - 0.5, 0, 1)
    return Portrait(image, matte, face=(224, 122), mouth=(224, 147), head=(84, 106), zoom=1.3)


@cache
def pebble_wall() -> np.ndarray:
    """uint8 RGB (512, 512, 3): scikit-image's gravel in a warm tone."""
    from skimage import data

    tone = np.array([0.8, 0.72, 0.64])
    return np.clip(data.gravel()[..., None] * tone + 50, 0, 255).astype(np.uint8)
