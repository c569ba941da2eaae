"""The process in which files are decoded: `python -m stages.decode_child FD`.

It answers one request after the other on the socket FD: a JSON object each way, and with frames the descriptor of an
anonymous memory file that holds them. A file that crashes or hangs a decoder costs this process and nothing else. It
imports nothing that is slow to import.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import resource
import signal
import socket
import stat
import sys
from contextlib import closing
from typing import Any

import numpy as np

from stages import decord_file
from stages.frame_folder import FrameFolder
from stages.packet_table import choose
from stages.picture import Box, MediaError, View
from stages.shot_detection import find_shots, scaled, shrunk
from stages.still_image import image_header, read_image
from stages.video_file import VideoFile

TRANSIENT = frozenset(
    {errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOSPC}
    | {errno.ECONNRESET, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ENOTCONN, errno.EINTR}
)
MAX_BYTES = 4 << 30  # of memory: twice what the largest pictures need; a file that makes libraries ask for more fails
GRACE_S = 5.0  # the parent kills at the deadline; should it be gone, the kernel does this much later

TYPES = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


def open_checked(path: str, folder: bool) -> int:
    """A descriptor of a regular file that is not empty, or of a folder. Looks first: a pipe would block for ever."""
    if os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114
        raise MediaError("is a broken link")
    found = os.stat(path)  # noqa: PTH116
    if folder and stat.S_ISDIR(found.st_mode):
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    if folder and not stat.S_ISREG(found.st_mode):
        raise MediaError("is not a folder of frames")
    for is_type, name in TYPES:
        if is_type(found.st_mode):
            raise MediaError(f"is {name}, not a file")
    if found.st_size == 0:
        raise MediaError("is empty (0 bytes)")
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def frames(path: str, request: dict[str, Any], memory: MemoryFile) -> dict[str, Any]:
    """Decode the frames asked for into `memory`; says which and by what."""
    box: Box | None = tuple(request["box"]) if request["box"] else None
    header = request["header"]
    if request["kind"] == "image":
        picture, view = read_image(path, request["size"], box)
        memory.frames(1, view)[0] = picture
        return {"view": [*view.native, *view.target], "count": 1, "times_s": [0.0], "decoder": "pillow"}
    view = View.of(header["width"], header["height"], box, request["size"])
    wanted = np.array(request["times_s"])
    if request["folder_fps"]:
        folder = FrameFolder(path, request["folder_fps"])
        timing = request["stride"], folder.fps, header["duration_s"]
        chosen = choose(folder.seconds, 1 / folder.fps, wanted, *timing).tolist()
        out = memory.frames(len(chosen), view)
        fill(folder.decode(chosen, (header["width"], header["height"])), chosen, view, out, 0)
        times = folder.seconds[chosen].tolist()
        return {"view": [*view.native, *view.target], "count": len(chosen), "times_s": times, "decoder": "pillow"}
    with closing(VideoFile(path)) as file:
        table = file.table((wanted[0], wanted[-1]) if file.large else None)
        if not len(table.seconds):
            raise MediaError("not one of its frames can be read")
        timing = request["stride"], header["fps"], header["duration_s"]
        chosen = choose(table.seconds, table.last_s, wanted, *timing).tolist()
        out = memory.frames(len(chosen), view)
        decoder = "pyav"
        if request["decord"] and decord_file.trusts(file, table):
            try:
                fill(decord_file.decode(path, table, chosen), chosen, view, out, 0)
                decoder = "decord"
            except decord_file.DecordError:
                pass  # PyAV decodes it, or says what is wrong
        if decoder == "pyav":
            fill(file.decode(table, chosen), chosen, view, out, header["rotation"])
    times = table.seconds[chosen].tolist()
    return {"view": [*view.native, *view.target], "count": len(chosen), "times_s": times, "decoder": decoder}


def shots(path: str, request: dict[str, Any], memory: MemoryFile) -> dict[str, Any]:
    """Find the cuts within a span; their times and the sharpness go into `memory`, for they can be many."""
    span, threshold = request["span"], request["threshold"]
    with contextlib.ExitStack() as stack:
        if request["folder_fps"]:
            folder = FrameFolder(path, request["folder_fps"])
            header, seconds = folder.header(), folder.seconds
        else:
            file = stack.enter_context(closing(VideoFile(path)))
            header = file.header()
            table = file.table(tuple(span) if span and file.large else None)
            seconds = table.seconds
        begin, end = span or (0.0, header["duration_s"])
        cuts: list[float] = []
        sharpness: list[float] = []
        inside = np.flatnonzero((seconds >= begin - 1e-6) & (seconds < end)).tolist()
        if threshold and inside:
            if request["folder_fps"]:
                pictures = folder.decode(inside, (header["width"], header["height"]))
            else:
                width, height = file.stream.codec_context.width, file.stream.codec_context.height
                pictures = file.decode(table, inside, scaled(width, height))
            cuts, sharpness = find_shots(shrunk(pictures, seconds), header["fps"], threshold)
    values = memory.numbers(len(cuts) + len(sharpness))
    values[:] = [*cuts, *sharpness]
    return {"fps": header["fps"], "duration_s": header["duration_s"], "cuts": len(cuts), "sharp": len(sharpness)}


def fill(pictures: Any, chosen: list[int], view: View, out: np.ndarray, rotation: int) -> None:
    """Scale each decoded picture at once into the places of `out` that it was chosen for."""
    import cv2

    turns = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
    for position, picture in pictures:
        first = chosen.index(position)
        view.write(cv2.rotate(picture, turns[rotation]) if rotation else picture, out[first])
        for again in range(first + 1, len(chosen)):
            if chosen[again] == position:
                out[again] = out[first]


class MemoryFile:
    """Anonymous memory that a descriptor names: it goes when the last process that holds it closes it or dies."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("frames")

    def frames(self, count: int, view: View) -> np.ndarray:
        """Room for `count` frames, uint8 (count, h, w, 3)."""
        width, height = view.target
        size = count * height * width * 3
        os.ftruncate(self.fd, size)
        return np.frombuffer(mmap.mmap(self.fd, size), np.uint8).reshape(count, height, width, 3)

    def numbers(self, count: int) -> np.ndarray:
        """Room for `count` numbers, float64; one at least, for memory cannot be empty."""
        size = max(count, 1) * 8
        os.ftruncate(self.fd, size)
        return np.frombuffer(mmap.mmap(self.fd, size), np.float64)[:count]


def answer(request: dict[str, Any], memory: MemoryFile) -> dict[str, Any]:
    """The reply to one request: what was asked for, or `error` and `transient`."""
    fd = None
    try:
        fd = open_checked(request["path"], bool(request.get("folder_fps")))
        try:
            # By its number, a hostile name cannot be taken for an URL, an option or a pattern.
            return answer_open(f"/dev/fd/{fd}", request, memory)
        except Exception:  # raised again: only asks first whether the storage, not the content, is at fault
            if not request.get("folder_fps"):
                read_through(fd)
            raise
    except MediaError as error:
        return {"error": str(error), "transient": error.transient}
    except FileNotFoundError:
        return {"error": "does not exist", "transient": False}
    except PermissionError:
        return {"error": "not readable: permission denied", "transient": False}
    except OSError as error:
        return {"error": f"cannot be read: {error.strerror or error}", "transient": error.errno in TRANSIENT}
    finally:
        if fd is not None:
            os.close(fd)


def answer_open(path: str, request: dict[str, Any], memory: MemoryFile) -> dict[str, Any]:
    """The same for a file that could be opened. Whatever the libraries raise becomes a MediaError."""
    try:
        if request["op"] == "frames":
            return frames(path, request, memory)
        if request["op"] == "shots":
            return shots(path, request, memory)
        if request["kind"] == "image":
            return image_header(path)
        if request["folder_fps"]:
            return FrameFolder(path, request["folder_fps"]).header()
        with closing(VideoFile(path)) as file:
            return file.header()
    except MediaError:
        raise
    except Exception as error:  # hostile files make libraries raise anything; what it was is recorded
        transient = type(error) is MemoryError  # FFmpeg's own also stands for absurd sizes in damaged files
        said = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise MediaError(f"cannot be decoded: {said}", transient) from error


def read_through(fd: int) -> None:
    """Read the whole file, so that an error of the storage is told from an error in the file: OSError."""
    offset = 0
    while part := os.pread(fd, 1 << 24, offset):
        offset += len(part)


def main() -> None:
    import cv2

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash must be over at once
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_BYTES, MAX_BYTES))
    cv2.setNumThreads(1)  # the workers share the cores
    os.environ["DECORD_EOF_RETRY_MAX"] = "128"  # its default of 10240 takes minutes at a damaged end
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.send(b"ready")
    while message := channel.recv(1 << 20):
        request = json.loads(message)
        signal.setitimer(signal.ITIMER_REAL, request["deadline_s"] + GRACE_S)
        os.ftruncate(2, 0)
        memory = MemoryFile()
        try:
            reply = json.dumps(answer(request, memory)).encode()
            socket.send_fds(channel, [reply], [] if request["op"] == "header" else [memory.fd])
        finally:
            os.close(memory.fd)
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
