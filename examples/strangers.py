"""Many made-up people before varied walls: the public-domain portrait varied in shape and colour, and drawn ones."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from examples.drawn import drawn
from examples.people import Portrait, astronaut


def stranger(seed: int) -> tuple[Portrait, np.ndarray]:
    """A person and a wall, uint8 RGB (512, 512, 3): the same ones for the same seed. Every third person is drawn."""
    rng = np.random.default_rng(seed)
    if seed % 3 == 2:
        return drawn(rng), wall(rng)
    person = astronaut()
    hue, saturation, gamma = rng.uniform(0, 180), rng.uniform(0.8, 1.8), rng.uniform(0.7, 1.4)
    tall, wide = rng.uniform(0.9, 1.1, 2)
    coloured = replace(person, image=_recoloured(person.image, hue, saturation, gamma))
    return _stretched(coloured, wide, tall), wall(rng)


def wall(rng: np.random.Generator) -> np.ndarray:
    """One pattern of soft blotches for everyone, in a random, muted colour.

    The large ones are what flow holds on to where a video has 16 x 16 pixels: before an even wall, grain of a few grey
    levels passes for motion. Always the same pattern, since nothing that the model is told says how the wall looks:
    what it cannot know only adds to its loss.
    """
    return np.clip(rng.uniform(100, 160, 3) + _blotches()[..., None], 0, 255).astype(np.uint8)


@cache
def _blotches() -> np.ndarray:
    import cv2

    noise = np.random.default_rng(0).normal(size=(2, 512, 512)).astype(np.float32)
    noise += noise[..., ::-1]  # a mirrored wall is the same wall
    fine, large = (cv2.GaussianBlur(layer, (0, 0), sigma) for layer, sigma in zip(noise, (6, 24), strict=True))
    return 14 * fine / fine.std() + 40 * large / large.std()


def _recoloured(image: np.ndarray, hue: float, saturation: float, gamma: float) -> np.ndarray:
    import cv2

    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + hue) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 255)
    hsv[..., 2] = 255 * (hsv[..., 2] / 255) ** gamma
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)


def _stretched(person: Portrait, wide: float, tall: float) -> Portrait:
    import cv2

    height, width = person.matte.shape
    size = round(width * wide), round(height * tall)

    def scaled(point: tuple[float, float]) -> tuple[float, float]:
        return point[0] * size[0] / width, point[1] * size[1] / height

    return Portrait(
        cv2.resize(person.image, size, interpolation=cv2.INTER_AREA),
        cv2.resize(person.matte, size, interpolation=cv2.INTER_AREA),
        face=scaled(person.face),
        mouth=scaled(person.mouth),
        head=scaled(person.head),
        zoom=person.zoom,
    )
