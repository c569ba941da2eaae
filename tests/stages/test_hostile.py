"""Each hostile file ends as a ClipError that says what was wrong, or as the right frames.

None hangs, none takes another clip with it.
"""

from __future__ import annotations

import os
import re
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from stages.base import ClipError
from stages.decode import Decoder, Header
from stages.frames import Frames
from tests.media import write_video
from tests.stages.decoding import error, outcome_of, read, true_frames

FASTSTART = {"container_options": {"movflags": "+faststart"}}


CUT = {
    "index_last.mp4": (
        {},
        r"moov atom not found|error reading header|has no video stream|unknown codec|not one of its frames",
    ),
    "index_first.mp4": (
        FASTSTART,
        r"error reading header|ends early: frame at \d\.\d\d s of 6\.00 s|not one of its|unknown codec",
    ),
    "a.mkv": ({}, r"ends early: frame at \d\.\d\d s of 6\.00 s|Truncating|not one of its frames"),
    "a.avi": ({"codec": "mpeg4"}, r"is too short|ends early|not one of its frames|no known video container"),
}


@pytest.mark.parametrize("name", CUT)
def test_truncated_files(decoder: Decoder, tmp_path: Path, name: str) -> None:
    """Cut at 20 places: never another frame in the place of one that is missing."""
    options, texts = CUT[name]
    data = write_video(tmp_path / name, frames=180, **options).read_bytes()
    path, outcomes = tmp_path / f"cut_{name}", []
    for k in range(1, 21):
        path.write_bytes(data[: len(data) * k // 21])
        outcome = outcome_of(decoder, path)
        outcomes.append(outcome)
        if isinstance(outcome, ClipError):
            assert re.search(texts, str(outcome)), str(outcome)
            assert not outcome.transient
        else:
            assert true_frames(outcome)
    assert isinstance(outcomes[0], ClipError)
    if name != "index_last.mp4":
        assert isinstance(outcomes[-1], Frames), "all wanted frames lie before the last cut"


@pytest.mark.parametrize(
    ("codec", "whole", "fill"),
    [
        ("libx264", 0.1, 0x55),
        ("libx264", 0.5, 0xFF),
        ("libx265", 0.1, 0x55),
        ("mpeg4", 0.1, 0x55),
        ("mpeg4", 0.1, 0xFF),
    ],
)
def test_a_damaged_frame_is_not_silently_replaced(
    decoder: Decoder, tmp_path: Path, codec: str, whole: float, fill: int
) -> None:
    """Decord gives an earlier frame in the place of one whose data is damaged, or one with a false patch."""
    import av

    path = tmp_path / "a.mp4"
    options = {"g": "30", "bf": "0"}
    if codec == "libx265":
        options["x265-params"] = "log-level=none:open-gop=0"
    data = bytearray(write_video(path, codec=codec, codec_options=options).read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for packet in packets[64:67]:
        assert packet.pos is not None
        kept = max(5, round(whole * packet.size))
        data[packet.pos + kept : packet.pos + packet.size] = bytes([fill]) * (packet.size - kept)
    path.write_bytes(data)
    outcome = outcome_of(decoder, path)
    assert isinstance(outcome, ClipError)
    assert re.search(r"^(is damaged before|frame at) 2\.\d\d s", str(outcome)), str(outcome)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "libsvtav1", "mpeg4"])
def test_flipped_bits(decoder: Decoder, tmp_path: Path, codec: str) -> None:
    """They end as frames or with a text; what the damage did to a picture cannot always be known."""
    path = tmp_path / ("a.webm" if codec == "libvpx-vp9" else "a.mp4")
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    data = write_video(path, codec=codec, codec_options=quiet, frames=120).read_bytes()
    random = np.random.default_rng(7)
    for _ in range(12):
        damaged = bytearray(data)
        for position in random.integers(len(data), size=random.integers(1, 30)):
            damaged[position] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        begun = time.monotonic()
        outcome = outcome_of(decoder, path)
        if isinstance(outcome, ClipError):
            assert len(str(outcome)) > 10
            assert not outcome.transient
        else:
            assert outcome.images.shape[0] == 16
        assert time.monotonic() - begun < 20


def test_frames_larger_than_the_header_says_are_not_decoded(decoder: Decoder, tmp_path: Path) -> None:
    """72 million pixels, after a header of 64x64."""
    import io

    import av

    def jpeg(width: int, height: int) -> bytes:
        out = io.BytesIO()
        PIL.Image.new("L", (width, height), 90).save(out, "jpeg", quality=10)
        return out.getvalue()

    path = tmp_path / "a.avi"
    small, large = jpeg(64, 64), jpeg(12000, 6000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=4)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        for i in range(16):
            packet = av.Packet(small if i < 5 else large)
            packet.pts = packet.dts = i
            packet.stream, packet.time_base = stream, Fraction(1, 4)
            packet.is_keyframe = True
            container.mux(packet)
    caught = error(decoder, path)
    assert str(caught) == "is damaged before 1.25 s of 4.00 s"
    assert not caught.transient


def test_a_file_gets_so_much_memory_and_no_more(decoder: Decoder, sound_file: Path) -> None:
    decoder.header(str(sound_file), "video")
    child = decoder._child
    assert child is not None
    limits = Path(f"/proc/{child.pid}/limits").read_text()
    assert re.search(rf"Max data size +{4 << 30} +{4 << 30} ", limits)


NAMES = ["with space.mp4", 'it\'s "quoted".mp4', "new\nline.mp4", "ünï ✓ 😀.mp4", "50%d%20.mp4", "-y.mp4", "a:b|c.mp4"]


@pytest.mark.parametrize("name", [*[os.fsencode(name) for name in NAMES], b"latin \xe9\xff.mp4"])
def test_names(decoder: Decoder, tmp_path: Path, sound_file: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)  # noqa: PTH118
    os.link(sound_file, path)
    assert true_frames(read(decoder, os.fsdecode(path)))


def test_8k_needs_no_memory_for_all_its_frames(tmp_path: Path) -> None:
    def flat(number: int, width: int, height: int) -> np.ndarray:
        return np.broadcast_to(np.array([number, 90, 200], np.uint8), (height, width, 3))

    # 16 pictures of this size would take 1.6 GB.
    path = write_video(
        tmp_path / "8k.mp4", frames=5, fps=1, size=(7680, 4320), picture=flat, codec="mjpeg", pix_fmt="yuvj420p"
    )
    with Decoder(60) as decoder:
        header, frames = decoder.header(str(path), "video"), read(decoder, path)
        assert (header.width, header.height) == frames.native == (7680, 4320)
        assert frames.images.shape == (16, 64, 114, 3)
        child = decoder._child
        assert child is not None
        status = Path(f"/proc/{child.pid}/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # type: ignore[index]
    assert peak < 900, f"{peak:.0f} MB"


def test_frames_leak_nothing(decoder: Decoder, sound_file: Path) -> None:
    read(decoder, sound_file)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    kept = [read(decoder, sound_file) for _ in range(5)]
    assert len(os.listdir("/proc/self/fd")) <= before + 5  # noqa: PTH208
    assert all(np.array_equal(kept[0].images, frames.images) for frames in kept)
    del kept
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_header_of_a_header(decoder: Decoder, sound_file: Path) -> None:
    assert decoder.header(str(sound_file), "video") == Header("video", 160, 96, 30.0, 5.0, 150, "h264", 0)
