"""A real face under known motion: frames, and the true optical flow between any two of them.

The face is the public-domain portrait that scikit-image carries, cut out and moved over a wall of pebbles.
Lengths are in grid pixels (the shorter side of a frame is 512 of them) unless said otherwise; x runs right, y down.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise, repeat

import numpy as np

from examples.geometry import dissimilar, radius, similar, smoothstep
from examples.motions import MOTIONS
from examples.people import Portrait, astronaut, pebble_wall

GRID = 512
FINER = 2
STEP_S = 0.25  # one step of the frame grid: 4 frames a second
FACE_AT = (256.0, 205.0)  # where the middle of the face rests on the grid


@dataclass(frozen=True, eq=False)
class Rendered:
    """A portrait under known motion; frames are rendered when asked for.

    speed: px per 1/4 s along the path of the motion; of an oscillation, the mean over its period. size: (width, height)
    of the frames in their own pixels; the grid is the square in their middle.
    """

    motion: str
    speed: float
    fps: float
    seconds: float
    size: tuple[int, int]
    portrait: Portrait
    ground: np.ndarray

    @property
    def one_way(self) -> bool:
        """Whether the steady motion keeps its direction from the first frame to the last."""
        kind = MOTIONS[self.motion]
        return kind.period_s is None and self.speed * self.seconds / STEP_S <= kind.room

    def times(self, count: int = 16, step_s: float = STEP_S) -> np.ndarray:
        """float64 (count,): seconds of the grid frames in the middle of the video."""
        last = (round(self.fps * self.seconds) - 1) / self.fps
        return (last - (count - 1) * step_s) / 2 + step_s * np.arange(count)

    def frames(self) -> Iterator[np.ndarray]:
        """Every frame of the video, uint8 RGB (h, w, 3)."""
        count = round(self.fps * self.seconds)
        if self.speed == 0:
            return repeat(self.frame(0), count)
        return (self.frame(i / self.fps) for i in range(count))

    def grid(self) -> np.ndarray:
        """The 16 grid frames, uint8 RGB (16, 512, 512, 3), straight from the renderer (size must be 512x512)."""
        assert self.size == (GRID, GRID)
        return np.stack([self.frame(t) for t in self.times()])

    def frame(self, t: float) -> np.ndarray:
        """The frame at t seconds, uint8 RGB (h, w, 3)."""
        if not self._local:
            return _over(self._person(t), self._wall(t) if self._camera else self._still_wall)
        picture = self._resting.copy()
        (cx, cy), (rx, ry), _, outer = self._part
        low, high = ((np.array([cx - s * rx, cy - s * ry]) - self._corner) * self._unit for s in (outer, -outer))
        x0, y0 = (int(v) // 4 * 4 for v in np.maximum(low, 0))
        x1, y1 = (int(v) // 4 * 4 for v in np.minimum(high + 4, self.size))
        picture[y0:y1, x0:x1] = _over(self._part_of_person(t, x0, y0, x1, y1), self._still_wall[y0:y1, x0:x1])
        return picture

    def true_flow(self, t0: float, t1: float) -> np.ndarray:
        """Where each grid pixel of the frame at t0 is at t1: float32 (512, 512, 2), displacement (x, y) in px."""
        import cv2

        x, y = np.meshgrid(np.arange(GRID), np.arange(GRID))
        seen = np.stack([x, y], -1) + 0.5
        still = self._without_camera(seen, t0)
        rest = self._at_rest(still, t0)
        at = (self._in_portrait(rest) - 0.5).astype(np.float32)
        matte = cv2.remap(self.portrait.matte, at[..., 0], at[..., 1], cv2.INTER_LINEAR)
        then = np.where(matte[..., None] > 0.5, self._moved(rest, t1), still)
        return (self._with_camera(then, t1) - seen).astype(np.float32)

    def face_box(self, t: float) -> tuple[float, float, float, float]:
        """Brows to chin at t seconds: x0, y0, x1, y1 on the grid, px."""
        corners = np.array([[x, y] for x in (-58, 58) for y in (-54, 62)]) + FACE_AT
        moved = self._with_camera(self._moved(corners, t), t)
        return (*moved.min(axis=0).tolist(), *moved.max(axis=0).tolist())

    def true_flows(self) -> np.ndarray:
        """The true flow of the 15 pairs of grid frames, float32 (15, 512, 512, 2)."""
        times = self.times()
        return np.stack([self.true_flow(a, b) for a, b in pairwise(times)])

    @property
    def _unit(self) -> float:
        """Frame pixels per grid pixel."""
        return min(self.size) / GRID

    @property
    def _corner(self) -> np.ndarray:
        """The frame's top left corner on the grid."""
        return (GRID - np.array(self.size) / self._unit) / 2

    @cached_property
    def _fine_ground(self) -> np.ndarray:
        return _finer(self.ground)

    @cached_property
    def _still_wall(self) -> np.ndarray:
        return self._wall(0)

    @cached_property
    def _resting(self) -> np.ndarray:
        return _over(self._person(0), self._still_wall)

    def _wall(self, t: float) -> np.ndarray:
        import cv2

        return self._warp(self._fine_ground, lambda seen: self._without_camera(seen, t), cv2.BORDER_REFLECT)

    def _person(self, t: float) -> np.ndarray:
        """The whole person at t (at rest, where only a part moves): uint8 RGBA (h, w, 4)."""

        def source(seen: np.ndarray) -> np.ndarray:
            return self._in_portrait(seen if self._local else self._at_rest(self._without_camera(seen, t), t))

        return self._warp(_rgba(self.portrait), source)

    def _warp(self, image: np.ndarray, source: Callable[[np.ndarray], np.ndarray], border: int = 0) -> np.ndarray:
        """The frame whose pixels come from `source`, an affine map of the grid onto the image before `_finer`."""
        import cv2

        o, x, y = FINER * source(np.array([[0, 0], [1, 0], [0, 1]]) / self._unit + self._corner)
        linear = np.column_stack([x - o, y - o])
        matrix = np.column_stack([linear, o + linear @ [0.5, 0.5] - 0.5])  # OpenCV's pixel centres are whole numbers
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image, matrix, self.size, flags=how, borderMode=border)

    def _part_of_person(self, t: float, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
        """The person in this box of the frame while a part moves. Solved on every fourth pixel: the warp is smooth."""
        import cv2

        def lattice(stride: int) -> np.ndarray:
            x, y = np.meshgrid(np.arange(x0, x1, stride), np.arange(y0, y1, stride))
            return (np.stack([x, y], -1) + stride / 2) / self._unit + self._corner

        coarse = lattice(4)
        rest = lattice(1) + cv2.resize(self._at_rest(coarse, t) - coarse, (x1 - x0, y1 - y0))
        source = (FINER * self._in_portrait(rest) - 0.5).astype(np.float32)
        return cv2.remap(_rgba(self.portrait), source[..., 0], source[..., 1], cv2.INTER_LINEAR)

    def _path(self, t: float) -> float:
        """How far along its path the motion is at t seconds, px; 0 in the middle of a steady motion."""
        kind = MOTIONS[self.motion]
        if kind.period_s is not None:
            swing = self.speed * math.pi / (4 * math.sin(math.pi * STEP_S / kind.period_s))
            angle = 2 * math.pi * t / kind.period_s
            return swing * (1 - math.cos(angle)) if kind.what == "jaw" else swing * math.sin(angle)
        length = self.speed * self.seconds / STEP_S
        room = kind.room if self.one_way else min(kind.room, length / 3)  # where it must turn, it turns twice or more
        straight = length * (t / self.seconds - 0.5)
        return room / math.pi * math.asin(math.sin(math.pi * straight / room))  # folds the path into its room

    def _pose(self, t: float) -> tuple[float, float, np.ndarray]:
        """Scale, roll and shift at t seconds."""
        kind, path = MOTIONS[self.motion], self._path(t)
        return math.exp(kind.scale * path), kind.roll * path, path * np.array([kind.dx, kind.dy])

    @property
    def _camera(self) -> bool:
        return MOTIONS[self.motion].what == "camera"

    @property
    def _local(self) -> bool:
        """Whether only a part of the person moves."""
        return MOTIONS[self.motion].what in ("head", "face", "jaw")

    def _with_camera(self, points: np.ndarray, t: float) -> np.ndarray:
        return similar(points, (GRID / 2, GRID / 2), *self._pose(t)) if self._camera else points

    def _without_camera(self, points: np.ndarray, t: float) -> np.ndarray:
        return dissimilar(points, (GRID / 2, GRID / 2), *self._pose(t)) if self._camera else points

    @property
    def _part(self) -> tuple[tuple[float, float], tuple[float, float], float, float]:
        """The ellipse that moves: centre, half axes, and the radii (in half axes) up to and from which all and nothing
        of it moves."""
        p = self.portrait
        (mx, my), hx, hy = np.subtract(p.mouth, p.face) * p.zoom + FACE_AT, p.head[0] * p.zoom, p.head[1] * p.zoom
        what = MOTIONS[self.motion].what
        if what == "head":
            return (FACE_AT[0], FACE_AT[1] - 0.15 * hy), (hx, hy), 1.0, 1.45
        if what == "face":
            return FACE_AT, (0.75 * hx, 0.9 * hy), 0.2, 1.25
        assert what == "jaw"
        return (mx, my + 0.2 * hy), (0.5 * hx, 0.3 * hy), 0.2, 1.2

    def _moved(self, rest: np.ndarray, t: float) -> np.ndarray:
        """Where points of the person at rest are at t, before the camera: x = p + w(p) (similarity(p) - p)."""
        if self._camera:
            return rest
        about = (FACE_AT[0], FACE_AT[1] + 0.65 * self.portrait.head[1] * self.portrait.zoom)  # the neck
        moved = similar(rest, about if self._local else FACE_AT, *self._pose(t))
        if not self._local:
            return moved
        centre, axes, inner, outer = self._part
        distance = radius(rest, centre, axes)[..., None]
        weight = smoothstep((outer - distance) / (outer - inner))
        if MOTIONS[self.motion].what == "jaw":  # nothing moves above the line between the lips
            lips = FACE_AT[1] + (self.portrait.mouth[1] - self.portrait.face[1]) * self.portrait.zoom
            weight = weight * smoothstep((rest[..., 1:] - lips + 2) / 10)
        return rest + weight * (moved - rest)

    def _at_rest(self, points: np.ndarray, t: float) -> np.ndarray:
        """The inverse of `_moved`: in closed form for the whole person, by damped fixed-point iteration for a part."""
        if self._camera:
            return points
        if not self._local:
            return dissimilar(points, FACE_AT, *self._pose(t))
        rest = points.copy()
        centre, axes, _, outer = self._part
        inside = radius(points, centre, axes) < outer
        moved, found = points[inside], points[inside]
        for _ in range(30):
            change = 0.7 * (moved - self._moved(found, t))
            found = found + change
            if np.abs(change).max() < 1e-3:
                break
        rest[inside] = found
        return rest

    def _in_portrait(self, rest: np.ndarray) -> np.ndarray:
        p = self.portrait
        return (rest - FACE_AT) / p.zoom + p.face


@cache
def _rgba(portrait: Portrait) -> np.ndarray:
    return _finer(np.dstack([portrait.image, np.round(255 * portrait.matte).astype(np.uint8)]))


def _finer(image: np.ndarray) -> np.ndarray:
    """The image enlarged by cubic interpolation, so that the cheap linear one serves for every frame."""
    import cv2

    return cv2.resize(image, None, fx=FINER, fy=FINER, interpolation=cv2.INTER_CUBIC)


def _over(person: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """RGBA over RGB."""
    import cv2

    alpha = person[..., 3].astype(np.float32) / 255
    return cv2.blendLinear(cv2.cvtColor(person, cv2.COLOR_RGBA2RGB), np.ascontiguousarray(ground), alpha, 1 - alpha)


def render(
    motion: str,
    speed: float = 0.0,
    *,
    fps: float = 25,
    seconds: float = 4,
    size: tuple[int, int] = (GRID, GRID),
    portrait: Portrait | None = None,
    ground: np.ndarray | None = None,
) -> Rendered:
    """A portrait under one of `MOTIONS` at `speed` px per 1/4 s; the astronaut before a wall of pebbles by default."""
    return Rendered(
        motion, speed, fps, seconds, size, portrait or astronaut(), pebble_wall() if ground is None else ground
    )
