"""The frames wanted, from every codec and container, whatever the layout of keyframes and times."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stages.base import ClipError
from stages.decode import Decoder, Header
from stages.frames import Frames, FrameSpec
from stages.packet_table import choose
from stages.video_file import VideoFile
from tests.media import number_of, numbered, write_video

SPEC = FrameSpec(fps=4, count=16, size=64)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(60) as decoder:
        yield decoder


def read(decoder: Decoder, path: Path, spec: FrameSpec = SPEC, **kwargs) -> tuple[Header, Frames]:
    header = decoder.header(str(path), "video")
    return header, decoder.frames(str(path), "video", spec, header, **kwargs)


def numbers(frames: Frames) -> list[int]:
    return [number_of(image) for image in frames.images]


def expected(length: int, fps: float, first: float | None = None) -> list[int]:
    """Numbers of the frames nearest to the grid's times at a constant frame rate, the earlier of two as near."""
    start = (length / fps - 3.75) / 2 if first is None else first
    return [int(np.ceil((start + i / 4) * fps - 0.5 - 1e-4)) for i in range(16)]


OPEN_GOP = {"x264-params": "open-gop=1:keyint=24:min-keyint=24:bframes=3:scenecut=0"}
HEVC = {"codec": "libx265", "codec_options": {"x265-params": "log-level=none"}}
AV1 = {"codec": "libsvtav1", "codec_options": {"preset": "8", "crf": "10"}}
FAST_VPX = {"deadline": "realtime", "cpu-used": "8", "threads": "1"}
CASES = {
    "h264.mp4": ({}, "decord"),
    "h264.mov": ({}, "decord"),
    "h264.mkv": ({}, "decord"),
    "h264.avi": ({}, "pyav"),
    "h264_one_keyframe.mp4": ({"codec_options": {"g": "1000", "bf": "3"}}, "decord"),
    "h264_all_keyframes.mp4": ({"codec_options": {"g": "1"}}, "decord"),
    "h264_closed_gops.mp4": ({"codec_options": {"g": "10", "bf": "2"}}, "decord"),
    "h264_open_gops.mp4": ({"codec_options": OPEN_GOP}, "pyav"),
    "h264_open_gops.mkv": ({"codec_options": OPEN_GOP}, "pyav"),
    "h264_intra_refresh.mp4": ({"codec_options": {"x264-params": "intra-refresh=1:keyint=30"}}, "pyav"),
    "h264_10bit.mp4": ({"pix_fmt": "yuv420p10le"}, "decord"),
    "h264_444.mp4": ({"pix_fmt": "yuv444p"}, "decord"),
    "h264_odd.mp4": ({"size": (161, 97), "pix_fmt": "yuv444p"}, "decord"),
    "h264_audio.mp4": ({"audio": True}, "decord"),
    "h264_faststart.mp4": ({"container_options": {"movflags": "+faststart"}}, "decord"),
    "h264_fragments.mp4": ({"container_options": {"movflags": "+frag_keyframe+empty_moov"}}, "decord"),
    "h264.ts": ({"audio": True}, "pyav"),
    "h264_late.mkv": ({"start_s": 5.0}, "decord"),
    "h264_late.mp4": ({"start_s": 5.0}, "decord"),
    "hevc.mp4": (HEVC | {"codec_options": {"x265-params": "log-level=none:open-gop=0:keyint=20"}}, "decord"),
    "hevc_open_gops.mp4": (HEVC | {"codec_options": {"x265-params": "log-level=none:keyint=20"}}, "pyav"),
    "hevc_10bit.mkv": (HEVC | {"pix_fmt": "yuv420p10le"}, "decord"),
    "vp9.webm": ({"codec": "libvpx-vp9", "codec_options": FAST_VPX}, "decord"),
    "vp9_audio.webm": ({"codec": "libvpx-vp9", "audio": True, "codec_options": FAST_VPX | {"g": "20"}}, "decord"),
    "vp8.webm": ({"codec": "libvpx", "codec_options": FAST_VPX}, "pyav"),
    "av1.mp4": (AV1, "pyav"),
    "av1.webm": (AV1, "pyav"),
    "mpeg4.avi": ({"codec": "mpeg4"}, "pyav"),
    "mpeg4_b.avi": ({"codec": "mpeg4", "codec_options": {"bf": "2"}}, "pyav"),
    "mpeg4_b.mp4": ({"codec": "mpeg4", "codec_options": {"bf": "2", "b": "2M"}}, "pyav"),
    "mpeg4.mp4": ({"codec": "mpeg4", "codec_options": {"b": "2M"}}, "pyav"),
    "mjpeg.mov": ({"codec": "mjpeg", "pix_fmt": "yuvj420p"}, "decord"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("fps", [30.0, 25.0])
def test_exactly_the_wanted_frames(decoder: Decoder, tmp_path: Path, name: str, fps: float) -> None:
    options, by = CASES[name]
    header, frames = read(decoder, write_video(tmp_path / name, fps=fps, **options))
    assert numbers(frames) == expected(150, fps)
    assert frames.decoder == by
    assert frames.images.shape[:2] == (16, 64)
    width, height = options.get("size", (160, 96))
    assert frames.native == (header.width, header.height) == (width, height)
    assert header.fps == pytest.approx(fps, rel=0.01)
    assert header.duration_s == pytest.approx(150 / fps, abs=0.05)
    np.testing.assert_allclose(frames.times_s, np.array(expected(150, fps)) / fps, atol=2e-3)


def test_variable_frame_rate(decoder: Decoder, tmp_path: Path) -> None:
    """Frames are chosen by when they are shown, not by their number."""
    steps = np.random.default_rng(3).uniform(0.01, 0.09, 149)
    times = np.concatenate([[0.0], np.cumsum(steps)])
    for name in ("vfr.mp4", "vfr.mkv"):
        header, frames = read(decoder, write_video(tmp_path / name, times_s=list(times)))
        assert header.duration_s == pytest.approx(times[-1], abs=0.1)
        wanted = (header.duration_s - 3.75) / 2 + np.arange(16) / 4
        assert numbers(frames) == [int(np.argmin(np.abs(times - t))) for t in wanted]
        assert np.abs(np.diff(frames.times_s) - 0.25).max() < 0.09


def test_edit_list_hides_the_first_frames(decoder: Decoder, tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "edited.mp4", start_s=-1.01, container_options={"avoid_negative_ts": "disabled"}, frames=180
    )
    header, frames = read(decoder, path, SPEC.model_copy(update={"window": "first"}))
    assert header.duration_s == pytest.approx(5.0, abs=0.02)
    assert header.frame_count == 150
    assert numbers(frames) == [30 + n for n in expected(150, 30, 0.0)]
    assert frames.decoder == "pyav"


class Pipe(io.RawIOBase):
    """A sink that cannot seek, as when a browser records: no duration and no index are written."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += data
        return len(data)


def test_webm_without_a_duration(decoder: Decoder, tmp_path: Path) -> None:
    pipe, path = Pipe(), tmp_path / "recorded.webm"
    write_video(
        path, codec="libvpx-vp9", codec_options=FAST_VPX, container_options={"live": "1"}, sink=pipe, sink_format="webm"
    )
    path.write_bytes(pipe.data)
    header, frames = read(decoder, path)
    assert header.duration_s == pytest.approx(5.0, abs=0.01)
    assert header.fps == pytest.approx(30, rel=0.01)
    assert numbers(frames) == expected(150, 30)


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize(("codec", "by"), [("libx264", "decord"), ("libsvtav1", "pyav")])
def test_rotated_file_equals_its_twin(decoder: Decoder, tmp_path: Path, rotation: int, codec: str, by: str) -> None:
    options = AV1["codec_options"] if codec == "libsvtav1" else {"crf": "10"}
    for size, shape in (((96, 160), (106, 64)), ((160, 96), (64, 107))):
        twin = write_video(tmp_path / "upright.mp4", size=size, codec=codec, codec_options=options)
        path = write_video(tmp_path / "turned.mp4", size=size, codec=codec, codec_options=options, rotation=rotation)
        _, upright = read(decoder, twin)
        header, frames = read(decoder, path)
        assert header.rotation == rotation
        assert (header.width, header.height) == frames.native == size
        assert frames.images.shape == (16, *shape, 3) if size[0] > size[1] else (16, 107, 64, 3)
        assert frames.decoder == by
        assert numbers(frames) == numbers(upright) == expected(150, 30)
        assert np.abs(frames.images.astype(int) - upright.images).mean() < 3


@pytest.mark.parametrize(
    ("size", "shape"), [((720, 1280), (910, 512)), ((1280, 720), (512, 910)), ((722, 406), (512, 911))]
)
def test_width_and_height_are_not_swapped(
    decoder: Decoder, tmp_path: Path, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    path = write_video(tmp_path / "tall.mp4", frames=16, fps=4, size=size, codec_options={"preset": "ultrafast"})
    header, frames = read(decoder, path, FrameSpec(size=512))
    assert (header.width, header.height) == frames.native == size
    assert frames.images.shape == (16, *shape, 3)
    assert numbers(frames) == list(range(16))


def test_stride_takes_every_nth_frame(decoder: Decoder, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=100)
    _, frames = read(decoder, path, SPEC.model_copy(update={"stride": 4}))
    assert numbers(frames) == [20 + 4 * i for i in range(16)]
    _, frames = read(decoder, path, SPEC.model_copy(update={"stride": 6, "window": "first"}))
    assert numbers(frames) == [6 * i for i in range(16)]
    tight = write_video(tmp_path / "b.mkv", frames=61, fps=29.97)
    _, frames = read(decoder, tight, SPEC.model_copy(update={"stride": 4}))
    assert numbers(frames) == [4 * i for i in range(16)]
    with pytest.raises(ClipError, match=re.escape("is too short: 3.33 s for a grid of 3.50 s")):
        read(decoder, path, SPEC.model_copy(update={"stride": 7}))


def test_span_places_the_window(decoder: Decoder, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=300, fps=30)
    _, frames = read(decoder, path, span=(1.0, 6.0))
    assert numbers(frames) == expected(300, 30, 1.0 + (5.0 - 3.75) / 2)
    _, frames = read(decoder, path, SPEC.model_copy(update={"window": "first"}), span=(4.0, 9.0))
    assert numbers(frames) == expected(300, 30, 4.0)
    with pytest.raises(ClipError, match=re.escape("span (20.0, 30.0) s lies outside the file of 10.00 s")):
        read(decoder, path, span=(20.0, 30.0))


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
def test_box_is_cut_before_scaling(decoder: Decoder, tmp_path: Path, codec: str) -> None:
    """A quarter of the picture, seen as large as the whole."""

    def quarters(number: int, width: int, height: int) -> np.ndarray:
        picture = np.full((height, width, 3), 128, np.uint8)
        picture[height // 2 :, width // 2 :] = numbered(number, width - width // 2, height - height // 2)
        return picture

    options = AV1["codec_options"] if codec == "libsvtav1" else {}
    path = write_video(
        tmp_path / "a.mp4", size=(320, 192), picture=quarters, codec=codec, codec_options=options, rotation=90
    )
    _, frames = read(decoder, path, box=(0.5, 0.5, 1.0, 1.0))
    assert frames.native == (160, 96)
    assert frames.images.shape == (16, 64, 107, 3)
    assert numbers(frames) == expected(150, 30)
    assert frames.scale == pytest.approx(64 / 96)


def test_short_files_repeat_nothing(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(ClipError, match=re.escape("is too short: 3.00 s for a grid of 3.75 s")):
        read(decoder, write_video(tmp_path / "short.mp4", frames=90))


def test_a_window_of_a_long_file(tmp_path: Path) -> None:
    """Large files are read around the wanted times only, with the same outcome."""
    for options in ({"g": "12"}, OPEN_GOP, {"g": "1000"}):
        file = VideoFile(str(write_video(tmp_path / "a.mp4", frames=600, codec_options=options)))
        whole, part = file.table(), file.table((8.0, 9.0))
        wanted = np.array([8.0, 8.25, 8.5, 9.0])
        assert len(part.pts) < len(whole.pts)
        if options != {"g": "1000"}:
            assert part.pts[0] > 5 / file.base, "it must not be read from its start"
        for table in (whole, part):
            chosen = choose(table.seconds, table.last_s, wanted, None, 30.0, 20.0)
            assert [number_of(picture) for _, picture in file.decode(table, chosen.tolist())] == [240, 247, 255, 270]
            np.testing.assert_allclose(table.seconds[chosen], [8.0, 247 / 30, 8.5, 9.0])
        file.close()
