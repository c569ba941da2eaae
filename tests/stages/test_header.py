"""Headers, the columns of the stages "header" and "decode", and images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from manifests.schema import FIELDS
from stages.base import ClipError
from stages.decode import Decoder, Header
from stages.frames import Frames, FrameSpec
from stages.header import DECODE, HEADER, Decoding, decode_columns, header_columns
from tests.media import number_of, numbered, write_video

SPEC = FrameSpec()
VIDEO = Header("video", 1280, 720, 30.0, 6.0, 180, "h264", 0)
IMAGE = Header("image", 640, 896, None, None, None, "png", 0)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(60) as decoder:
        yield decoder


def test_columns_of_a_video() -> None:
    assert header_columns(VIDEO, SPEC, None) == {
        "start_s": 1.125,
        "duration_s": 3.75,
        "file_duration_s": 6.0,
        "fps": 30.0,
        "width": 1280,
        "height": 720,
        "short_side": 720,
        "frame_count": 180,
        "missing_frames": 0,
        "codec": "h264",
        "rotation": 0,
    }
    first = header_columns(VIDEO, FrameSpec(window="first"), (1.0, 5.5))
    assert (first["start_s"], first["duration_s"], first["file_duration_s"]) == (1.0, 3.75, 4.5)
    boxed = header_columns(VIDEO, SPEC, None, (0.0, 0.0, 0.5, 1.0))
    assert (boxed["width"], boxed["height"], boxed["short_side"]) == (1280, 720, 640)


def test_columns_of_an_image() -> None:
    columns = header_columns(IMAGE, SPEC, None)
    assert columns["start_s"] == 0.0
    assert [columns[n] for n in ("duration_s", "file_duration_s", "fps", "frame_count")] == [None] * 4
    assert (columns["width"], columns["height"], columns["short_side"]) == (640, 896, 640)
    assert columns["missing_frames"] == 0


@pytest.mark.parametrize(
    ("duration", "fps", "spec", "missing"),
    [
        (3.75, 30.0, SPEC, 0),
        (3.74, 30.0, SPEC, 1),
        (3.12, 25.0, SPEC, 3),
        (0.04, 25.0, SPEC, 15),
        (61 / 30, 30.0, FrameSpec(stride=4), 0),
        (60 / 30, 30.0, FrameSpec(stride=4), 1),
        (57 / 30, 30.0, FrameSpec(stride=4), 1),
        (56 / 30, 30.0, FrameSpec(stride=4), 2),
    ],
)
def test_missing_frames(duration: float, fps: float, spec: FrameSpec, missing: int) -> None:
    header = Header("video", 512, 512, fps, duration, None, "h264", 0)
    columns = header_columns(header, spec, None)
    assert columns["missing_frames"] == missing
    assert columns["file_duration_s"] == duration


def test_span_beyond_the_file() -> None:
    assert header_columns(VIDEO, SPEC, (4.0, 9.0))["file_duration_s"] == 2.0
    with pytest.raises(ClipError, match=re.escape("span (6.5, 9.0) s lies outside the file of 6.00 s")):
        header_columns(VIDEO, SPEC, (6.5, 9.0))


def test_columns_of_the_grid() -> None:
    frames = Frames(np.zeros((16, 512, 910, 3), np.uint8), np.zeros(16), (1280, 720), "pyav")
    assert decode_columns(frames, SPEC, VIDEO) == {
        "decoder": "pyav",
        "grid_fps": 4.0,
        "grid_frames": 16,
        "grid_size": 512,
    }
    assert decode_columns(frames, FrameSpec(stride=4), VIDEO)["grid_fps"] == 7.5
    assert decode_columns(frames, FrameSpec(stride=4), IMAGE)["grid_fps"] == 4.0


def test_stages_measure_what_they_declare() -> None:
    assert list(header_columns(VIDEO, SPEC, None)) == [field.name for field in HEADER.fields]
    frames = Frames(np.zeros((16, 64, 64, 3), np.uint8), np.zeros(16), (64, 64), "decord")
    assert list(decode_columns(frames, SPEC, VIDEO)) == [field.name for field in DECODE.fields]
    assert all(field.equals(FIELDS[field.name]) for field in (*HEADER.fields, *DECODE.fields))


def test_rules() -> None:
    thresholds = {"min_side": 512, "min_duration_s": 3.75}

    def reasons(**changed: object) -> list[str]:
        columns = header_columns(VIDEO, SPEC, None) | changed
        return [rule.reason for rule in HEADER.rules if rule.rejects(columns[rule.column], thresholds)]

    assert reasons() == []
    assert reasons(short_side=511) == ["resolution"]
    assert reasons(file_duration_s=3.7) == ["too_short"]
    assert reasons(file_duration_s=None) == []
    assert reasons(missing_frames=1) == ["too_short"]


def test_version_names_each_library() -> None:
    assert re.fullmatch(
        r"av \d\S+ decord \d\S+ pillow \d\S+ opencv-python-headless \d\S+", Decoding(Decoding.Params(), SPEC).version()
    )


def test_frame_count_and_length_of_the_real_clips(decoder: Decoder, shared: Path) -> None:
    expected = {
        "driving_d0": (512, 512, 3.1),
        "driving_d6": (480, 480, 33.6),
        "driving_d9": (512, 480, 19.6),
        "driving_d14": (512, 512, 17.9),
        "source_s13": (720, 1080, 4.1),
        "source_s20": (480, 908, 9.9),
        "source_s32": (1280, 720, 6.0),
    }
    for name, (width, height, duration) in expected.items():
        header = decoder.header(str(shared / "clips" / f"{name}.mp4"), "video")
        assert (header.width, header.height, header.codec) == (width, height, "h264")
        assert header.duration_s == pytest.approx(duration, abs=0.06)
        assert header.frame_count == round(header.duration_s * header.fps)


def test_real_clips_through_either_decoder(decoder: Decoder, shared: Path) -> None:
    """Decord's frames are PyAV's, to the last digit."""
    for name in ("driving_d12", "source_s13"):
        path = str(shared / "clips" / f"{name}.mp4")
        header = decoder.header(path, "video")
        first = decoder.frames(path, "video", SPEC, header)
        assert first.decoder == "decord"
        decoder.use_decord = False
        second = decoder.frames(path, "video", SPEC, header)
        decoder.use_decord = True
        assert second.decoder == "pyav"
        np.testing.assert_array_equal(first.images, second.images)
        np.testing.assert_array_equal(first.times_s, second.times_s)


def image(decoder: Decoder, path: Path, size: int = 64) -> tuple[Header, Frames]:
    header = decoder.header(str(path), "image")
    return header, decoder.frames(str(path), "image", SPEC.model_copy(update={"size": size}), header)


def test_a_still_is_one_picture_sixteen_times(decoder: Decoder, tmp_path: Path) -> None:
    PIL.Image.fromarray(numbered(345, 200, 120)).save(tmp_path / "a.png")
    header, frames = image(decoder, tmp_path / "a.png")
    assert header == Header("image", 200, 120, None, None, None, "png", 0)
    assert frames.images.shape == (16, 64, 107, 3)
    assert frames.native == (200, 120)
    assert frames.decoder == "pillow"
    assert frames.times_s.tolist() == [0.0] * 16
    assert {number_of(picture) for picture in frames.images} == {345}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(decoder: Decoder, tmp_path: Path, orientation: int) -> None:
    """The picture is stored as a camera held that way would, and comes out upright."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL.Image.Transpose that brings upright to stored
    stored = PIL.Image.fromarray(numbered(345, 200, 120))
    if orientation > 1:
        stored = stored.transpose(PIL.Image.Transpose(undo[orientation]))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    header, frames = image(decoder, tmp_path / "a.jpg")
    assert (header.width, header.height) == frames.native == (200, 120)
    assert frames.images.shape == (16, 64, 107, 3)
    assert number_of(frames.images[0]) == 345
    assert header.rotation == {1: 0, 2: 0, 3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}[orientation]


def colour(path: Path, decoder: Decoder) -> tuple[int, ...]:
    _, frames = image(decoder, path)
    assert frames.images.dtype == np.uint8
    assert frames.images.shape == (16, 64, 64, 3)
    pixels = frames.images[0].reshape(-1, 3).astype(int)
    assert pixels.std(axis=0).max() < 2
    return tuple(np.median(pixels, axis=0).astype(int).tolist())


def test_modes_of_images(decoder: Decoder, tmp_path: Path) -> None:
    red = PIL.Image.new("RGB", (80, 80), (200, 40, 20))
    made = {
        "palette.png": (red.quantize(4), (200, 40, 20)),
        "grey.png": (PIL.Image.new("L", (80, 80), 77), (77, 77, 77)),
        "bits.png": (PIL.Image.new("1", (80, 80), 1), (255, 255, 255)),
        "alpha.png": (PIL.Image.new("RGBA", (80, 80), (255, 0, 0, 0)), (128, 128, 128)),
        "half.png": (PIL.Image.new("RGBA", (80, 80), (255, 0, 0, 128)), (192, 64, 64)),
        "grey_alpha.png": (PIL.Image.new("LA", (80, 80), (255, 0)), (128, 128, 128)),
        "deep.png": (PIL.Image.fromarray(np.full((80, 80), 0x8000, np.uint16)), (128, 128, 128)),
        "deep.tiff": (PIL.Image.fromarray(np.full((80, 80), 0xFFFF, np.uint16)), (255, 255, 255)),
        "float.tiff": (PIL.Image.fromarray(np.full((80, 80), 77, np.float32)), (77, 77, 77)),
        "a.webp": (red, (200, 40, 20)),
        "a.bmp": (red, (200, 40, 20)),
        "a.gif": (red, (200, 40, 20)),
        "cmyk.tiff": (PIL.Image.new("CMYK", (80, 80), (0, 255, 255, 0)), (255, 0, 0)),
    }
    for name, (picture, expected) in made.items():
        picture.save(tmp_path / name)
        got = colour(tmp_path / name, decoder)
        assert max(abs(a - b) for a, b in zip(got, expected, strict=True)) <= 4, f"{name}: {got} is not {expected}"
    transparent = red.quantize(4)
    transparent.info["transparency"] = transparent.getpixel((0, 0))
    transparent.save(tmp_path / "hole.png", transparency=transparent.getpixel((0, 0)))
    assert colour(tmp_path / "hole.png", decoder) == (128, 128, 128)


def test_colours_of_video(decoder: Decoder, tmp_path: Path) -> None:
    """Red is red, not blue."""

    def red(number: int, width: int, height: int) -> np.ndarray:
        return np.broadcast_to(np.array([200, 40, 20], np.uint8), (height, width, 3))

    for codec, by in (("libx264", "decord"), ("libsvtav1", "pyav")):
        path = write_video(tmp_path / "a.mp4", frames=20, fps=5, codec=codec, picture=red)
        header = decoder.header(str(path), "video")
        frames = decoder.frames(str(path), "video", SPEC.model_copy(update={"size": 64}), header)
        assert frames.decoder == by
        np.testing.assert_allclose(frames.images.mean(axis=(0, 1, 2)), [200, 40, 20], atol=4)


def test_real_stills(decoder: Decoder, shared: Path) -> None:
    header, frames = image(decoder, shared / "stills" / "group.jpg", 512)
    assert header == Header("image", 1280, 886, None, None, None, "jpeg", 0)
    assert frames.images.shape == (16, 512, 740, 3)
    for path in sorted((shared / "stills").glob("art_*.png")):
        header, frames = image(decoder, path, 512)
        assert header.codec == "png"
        assert min(frames.images.shape[1:3]) == 512
