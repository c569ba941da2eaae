"""Area of text boxes, and what RapidOCR makes of captions on a face and of real clips without any."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageDraw, ImageFont

from stages.frames import FrameSpec
from stages.text import STAGE, RapidOcr, RapidOcrParams
from stages.text_area import Reading, text_area
from tests.conftest import ROOT
from tests.stages.samples import FEW, NAMES, STILLS, columns_of, real, sample, verdict

PORTRAIT = skimage.data.astronaut()
Rectangle = tuple[float, float, float, float]


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


@pytest.mark.parametrize(
    ("readings", "pixels"),
    [
        ([], 0),
        ([(box(10, 20, 60, 40), "hello", 0.9)], 50 * 20),
        ([(box(10, 20, 60, 40), "hello", 0.9), (box(40, 30, 90, 50), "again", 0.9)], 2 * 50 * 20 - 20 * 10),
        ([(box(10, 20, 60, 40), "hello", 0.9)] * 3, 50 * 20),
        ([(box(0, 0, 200, 100), "O", 0.99)], 0),
        ([(box(0, 0, 200, 100), "O \n", 0.99)], 0),
        ([(box(0, 0, 200, 30), "on", 0.59)], 0),
        ([(box(0, 0, 200, 30), "on", 0.6)], 200 * 30),
        ([(box(0, 0, 200, 31), "88", 0.9)], 0),
        ([(box(-50, -15, 10, 10), "edge", 0.9)], 10 * 10),
    ],
    ids=[
        "none",
        "one",
        "overlap",
        "same",
        "one letter",
        "letter and spaces",
        "unsure",
        "just sure",
        "too tall a line",
        "over the edge",
    ],
)
def test_area_is_the_union_of_boxes_that_count(readings: list[Reading], pixels: int) -> None:
    assert text_area(readings, (100, 200), 2, 0.6) == pytest.approx(pixels / (100 * 200))


def test_area_of_a_tilted_box() -> None:
    diamond = np.array([[100, 30], [120, 50], [100, 70], [80, 50]])
    assert text_area([(diamond, "tilted", 1.0)], (100, 200), 2, 0.6) == pytest.approx(800 / 20000, rel=0.07)


@pytest.fixture(scope="module")
def engine() -> RapidOcr:
    engine = RapidOcr(RapidOcrParams(), FrameSpec())
    engine.setup("cpu")
    return engine


def captioned(size: int, at: str, style: str, text: str = "and then we went home") -> tuple[np.ndarray, float]:
    """The portrait with a caption of this font size, and the share of it that the letters' box covers."""
    picture = Image.fromarray(PORTRAIT)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size)
    place = {"xy": (256, 30 if at == "top" else 482), "anchor": "mm", "font": font}
    x0, y0, x1, y1 = draw.textbbox(**place, text=text)
    if style == "boxed":
        draw.rectangle((x0 - 6, y0 - 4, x1 + 6, y1 + 4), fill="black")
    edge = {"stroke_width": max(1, size // 12), "stroke_fill": "black"} if style == "outlined" else {}
    draw.text(**place, text=text, fill="white", **edge)
    return np.asarray(picture), (x1 - x0) * (y1 - y0) / 512**2


@pytest.mark.parametrize("style", ["outlined", "boxed"])
@pytest.mark.parametrize(("size", "at"), [(14, "top"), (18, "bottom"), (24, "top"), (40, "bottom")])
def test_captions_are_found(engine: RapidOcr, size: int, at: str, style: str) -> None:
    image, letters = captioned(size, at, style)
    found = columns_of(engine.measure([sample(image[None])])[0])
    assert letters < found["text_area"] < 2.6 * letters
    words = " ".join(text for _, text, _ in engine.read(image)).replace(" ", "")
    assert "wewenthome" in words


def test_every_clip_gets_the_most_of_its_looked_at_frames(engine: RapidOcr) -> None:
    image, _ = captioned(24, "bottom", "outlined")
    clean = np.stack([PORTRAIT] * 16)
    late, unseen = clean.copy(), clean.copy()
    late[15] = image
    unseen[3] = image
    results = [columns_of(result) for result in engine.measure([sample(clean), sample(late), sample(unseen)])]
    assert [set(result) for result in results] == [{"text_area", "text_frame"}] * 3
    assert results[0]["text_area"] == 0.0
    assert results[1]["text_area"] == text_area(engine.read(image), (512, 512), 2, 0.6)
    assert results[1]["text_frame"] == 15
    assert results[2]["text_area"] == 0.0
    assert [verdict(STAGE, result, {"max_text_area": 0.02}) for result in results] == [None, "text_overlay", None]


def test_boxes_are_in_pixels_of_the_frame(engine: RapidOcr) -> None:
    image, _ = captioned(40, "bottom", "outlined")
    wide = np.concatenate([np.zeros_like(image), image], axis=1)  # scaled for the detector, then back
    corners = np.concatenate([corners for corners, text, _ in engine.read(wide) if len(text) > 1])
    assert corners[:, 0].min() == pytest.approx(512 + 60, abs=30)
    assert corners[:, 1].mean() == pytest.approx(482, abs=6)


class Counting(RapidOcr):
    """Counts the frames it reads."""

    count = 0

    def read(self, image: np.ndarray) -> list[Reading]:
        self.count += 1
        return []


def test_of_a_still_one_frame_is_read() -> None:
    engine = Counting(RapidOcrParams(), FrameSpec())
    images = np.zeros((16, 64, 64, 3), np.uint8)
    engine.measure([sample(images)])
    assert engine.count == 3
    engine.measure([sample(images, "image")])
    assert engine.count == 4


QUIET = """
import numpy as np
from stages.frames import FrameSpec
from stages.text import RapidOcr, RapidOcrParams
engine = RapidOcr(RapidOcrParams(), FrameSpec())
engine.setup("cpu")
engine.read(np.zeros((512, 512, 3), np.uint8))
"""


def test_it_is_quiet() -> None:
    done = subprocess.run([sys.executable, "-c", QUIET], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def check_clean(shared: Path, engine: RapidOcr, clips: list[str], stills: list[str]) -> None:
    """Not a pixel of text on these real clips and pictures."""
    files = [shared / "clips" / name for name in clips] + [shared / "stills" / name for name in stills]
    results = engine.measure([real(file) for file in files])
    areas = {f.name: columns_of(r)["text_area"] for f, r in zip(files, results, strict=True)}
    assert areas == {f.name: 0.0 for f in files}


def test_no_false_alarm_on_real_pictures(shared: Path, engine: RapidOcr) -> None:
    check_clean(shared, engine, FEW, [STILLS[0], "group.jpg"])


@pytest.mark.slow
def test_no_false_alarm_on_any_real_picture(shared: Path) -> None:
    engine = RapidOcr(RapidOcrParams(frames=16), FrameSpec())
    engine.setup("cpu")
    check_clean(shared, engine, NAMES, [*STILLS, "group.jpg"])
