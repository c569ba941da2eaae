"""Each hostile file ends as a ClipError that says what was wrong, or as the right frames.

None hangs, none takes another clip with it.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from stages.base import ClipError
from stages.decode import Decoder, Header
from stages.frames import Frames, FrameSpec
from tests.media import Silence, number_of, numbered, write_video

SPEC = FrameSpec(fps=4, count=16, size=64)
FASTSTART = {"container_options": {"movflags": "+faststart"}}


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(20) as decoder:
        yield decoder


@pytest.fixture(scope="module")
def sound_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("sound") / "sound.mp4", codec_options={"g": "25"})


def read(decoder: Decoder, path: Path | str, kind: str = "video") -> Frames:
    header = decoder.header(str(path), kind)
    return decoder.frames(str(path), kind, SPEC, header)


def outcome_of(decoder: Decoder, path: Path | str, kind: str = "video") -> Frames | ClipError:
    try:
        return read(decoder, path, kind)
    except ClipError as caught:
        return caught


def error(decoder: Decoder, path: Path | str, kind: str = "video") -> ClipError:
    outcome = outcome_of(decoder, path, kind)
    assert isinstance(outcome, ClipError)
    return outcome


def true_frames(frames: Frames) -> bool:
    """Whether each frame is the one that was shown at its time, and the times are a grid's."""
    shown = np.round(frames.times_s * 30).astype(int).tolist()
    return bool(np.abs(np.diff(frames.times_s) - 0.25).max() < 0.03) and [number_of(i) for i in frames.images] == shown


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


def text(path: Path) -> None:
    path.write_text("This is no video at all.\n" * 40)


def playlist(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def broken_link(path: Path) -> None:
    path.symlink_to(path.parent / "gone.mp4")


def listening_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


def audio_only(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        sound = Silence(container)
        sound.reach(5)
        sound.end()


def cover_only(path: Path) -> None:
    """An audio file with a cover picture, which FFmpeg shows as a video stream."""
    import av

    with av.open(str(path), "w") as container:
        sound = Silence(container)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 160, 96, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sound.reach(5)
        sound.end()
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(0, 160, 96), "rgb24")))
        container.mux(cover.encode(None))


def one_frame(path: Path) -> None:
    write_video(path, frames=1)


def animation(path: Path) -> None:
    PIL.Image.fromarray(numbered(1, 160, 96)).save(path, format="gif")


def nothing(path: Path) -> None:
    path.touch()


def zeros(path: Path) -> None:
    path.write_bytes(bytes(100_000))


def narrow(path: Path) -> None:
    write_video(path, size=(2048, 32), frames=20, fps=4)


HOSTILE: list[tuple[Callable[[Path], object], str]] = [
    (nothing, r"^is empty \(0 bytes\)$"),
    (zeros, r"^(is not a video file|cannot be opened as a video)"),
    (text, r"^is not a video file: no known video container in it$"),
    (playlist, r"^is not a video file: no known video container in it$"),
    (animation, r"^is not a video file: no known video container in it$"),
    (pipe, r"^is a named pipe, not a file$"),
    (Path.mkdir, r"^is a directory, not a file$"),
    (broken_link, r"^is a broken link$"),
    (listening_socket, r"^is a socket, not a file$"),
    (audio_only, r"^has no video stream$"),
    (cover_only, r"^has no video stream$"),
    (one_frame, r"^is too short: 0\.03 s for a grid of 3\.75 s$"),
    (narrow, r"^picture of 2048x32 is narrower than 1:8$"),
]


@pytest.mark.parametrize(("make", "message"), HOSTILE, ids=[make.__name__ for make, _ in HOSTILE])
def test_what_is_no_video(
    decoder: Decoder, tmp_path: Path, capfd: pytest.CaptureFixture[str], make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "x.mp4"
    make(path)
    capfd.readouterr()
    begun = time.monotonic()
    caught = error(decoder, path)
    assert re.search(message, str(caught)), str(caught)
    assert not caught.transient
    assert time.monotonic() - begun < 5
    assert capfd.readouterr() == ("", ""), "FFmpeg's noise must not reach the console"


def test_missing_and_device_files(decoder: Decoder, tmp_path: Path) -> None:
    assert str(error(decoder, tmp_path / "gone.mp4")) == "does not exist"
    assert str(error(decoder, tmp_path / "gone" / "gone.mp4")) == "does not exist"
    assert str(error(decoder, "/dev/zero")) == "is a character device, not a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_permissions(decoder: Decoder, tmp_path: Path, sound_file: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(sound_file.read_bytes())
    path.chmod(0)
    assert str(error(decoder, path)) == "not readable: permission denied"


def test_images_that_are_none(decoder: Decoder, tmp_path: Path, sound_file: Path) -> None:
    assert (
        str(error(decoder, sound_file, "image")) == "is not an image of a known format: PNG, JPEG, WEBP, BMP, TIFF, GIF"
    )
    whole = tmp_path / "a.png"
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)).save(whole)
    cut = tmp_path / "b.png"
    cut.write_bytes(whole.read_bytes()[:9000])
    assert str(error(decoder, cut, "image")) == "cannot be decoded: OSError: image file is truncated"
    bomb = tmp_path / "c.png"
    PIL.Image.new("1", (30000, 30000)).save(bomb)
    assert str(error(decoder, bomb, "image")) == (
        "picture of 30000x30000 is too large: the limit is 134 million pixels"
    )


def test_postscript_under_an_images_name_is_not_run(decoder: Decoder, tmp_path: Path) -> None:
    """Pillow would start Ghostscript on it."""
    path = tmp_path / "a.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n(x) print\n%%EOF\n")
    with PIL.Image.open(path) as image:
        assert image.format == "EPS"
    assert str(error(decoder, path, "image")).startswith("is not an image of a known format: PNG, ")


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


def stopped(decoder: Decoder, path: Path, then: Callable[[int], None], deadline_s: float = 20) -> Frames | ClipError:
    """Ask for frames while the child stands still, and do `then` to it meanwhile."""
    header = decoder.header(str(path), "video")
    decoder.deadline_s = deadline_s
    child = decoder._child
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    timer = threading.Timer(0.3, then, [child.pid])
    timer.start()
    try:
        return decoder.frames(str(path), "video", SPEC, header)
    except ClipError as caught:
        return caught
    finally:
        timer.join()


def test_a_killed_child_costs_its_clip_only(sound_file: Path) -> None:
    with Decoder(20) as decoder:
        outcome = stopped(decoder, sound_file, lambda pid: os.kill(pid, signal.SIGKILL))
        assert isinstance(outcome, ClipError)
        assert str(outcome) == "decoder crashed (SIGKILL)"
        assert outcome.transient, "mostly a want of memory: the next run tries again"
        assert true_frames(read(decoder, sound_file))


def test_where_decord_crashes_pyav_decodes(sound_file: Path) -> None:
    def crash(pid: int) -> None:
        os.kill(pid, signal.SIGSEGV)
        os.kill(pid, signal.SIGCONT)

    with Decoder(20) as decoder:
        assert read(decoder, sound_file).decoder == "decord"
        outcome = stopped(decoder, sound_file, crash)
        assert isinstance(outcome, Frames)
        assert outcome.decoder == "pyav"
        assert true_frames(outcome)


def test_deadline(sound_file: Path) -> None:
    with Decoder(20) as decoder:
        begun = time.monotonic()
        outcome = stopped(decoder, sound_file, lambda pid: None, deadline_s=1)
        assert isinstance(outcome, ClipError)
        expected = "was not decoded within 1 s, of which the decoder worked 0.0 s: storage or machine were too busy"
        assert str(outcome) == expected
        assert outcome.transient
        assert 0.9 < time.monotonic() - begun < 20
        decoder.deadline_s = 20
        assert true_frames(read(decoder, sound_file))


def test_a_file_that_uses_its_time_up_is_at_fault(sound_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine too busy to give a file its time is not; so the clock is one that the test turns."""
    with Decoder(20) as decoder:
        decoder.header(str(sound_file), "video")
        before = decoder._cpu_s()
        read(decoder, sound_file)
        assert before < decoder._cpu_s() < before + 5
        clock = iter([0.0, 3.0, 3.95])  # when the header and when the frames are asked for, and when time is up
        monkeypatch.setattr(decoder, "_cpu_s", lambda: next(clock))
        outcome = stopped(decoder, sound_file, lambda pid: None, deadline_s=1)
    assert isinstance(outcome, ClipError)
    assert str(outcome) == "cannot be decoded within 1 s"
    assert not outcome.transient


def test_a_child_outlives_neither_close_nor_its_parent(sound_file: Path) -> None:
    import subprocess
    import sys

    decoder = Decoder(20)
    read(decoder, sound_file)
    child = decoder._child
    assert child is not None
    decoder.close()
    assert child.poll() == -signal.SIGKILL
    code = (
        "import os, signal; from stages.decode import Decoder; d = Decoder(20);"
        f"d.header({str(sound_file)!r}, 'video'); print(d._child.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    parent = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    orphan = int(parent.stdout)
    until = time.monotonic() + 10
    while Path(f"/proc/{orphan}").exists() and "Z" not in Path(f"/proc/{orphan}/stat").read_text().split()[2]:
        assert time.monotonic() < until, "the child outlived its parent"
        time.sleep(0.05)


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
