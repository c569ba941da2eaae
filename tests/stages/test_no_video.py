"""What is no video, or no image, is said in one line."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from stages.decode import Decoder
from tests.media import Silence, numbered, write_video
from tests.stages.decoding import error


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


@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may read everything, and has no setpriv here"
)
def test_unreadable_permissions(tmp_path: Path, sound_file: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(sound_file.read_bytes())
    path.chmod(0)
    code = (
        "import sys; from stages.base import ClipError; from stages.decode import Decoder\n"
        "with Decoder(60) as decoder:\n"
        "    try: decoder.header(sys.argv[1], 'video')\n"
        "    except ClipError as error: print(error)"
    )
    plain = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    found = subprocess.run([*plain, sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert found.stdout == "not readable: permission denied\n"


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
