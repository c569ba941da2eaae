"""Headers and frames of clips, decoded in a child process with a deadline: no file can crash or hang the caller."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from stages.base import ClipError
from stages.clip import Kind
from stages.frames import Frames, FrameSpec
from stages.grid_times import grid_start

GOT_TIME = 0.9  # of its deadline as CPU time: a file that takes longer does so on an idle machine too
START_S = 120.0  # a cold start imports OpenCV and two FFmpegs, on a busy machine
Span = tuple[float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    width, height: displayed pixels, rotation applied. fps: mean frames per second; duration_s: from the first frame to
    the end of the last; both None for images. frame_count: None where unknown. codec: of the video stream, or the
    image's format. rotation: degrees clockwise that the file asks for, a multiple of 90. folder: whether it is no file
    but a folder of frames.
    """

    kind: Kind
    width: int
    height: int
    fps: float | None
    duration_s: float | None
    frame_count: int | None
    codec: str
    rotation: int
    folder: bool = False


@dataclass(frozen=True)
class Grid:
    """Place of the frame grid in a file: all times in seconds from the file's first frame.

    span: what of the file the grid may lie in. missing: grid frames that it is too short for.
    """

    span: Span
    start_s: float
    length_s: float
    missing: int

    @classmethod
    def of(cls, header: Header, spec: FrameSpec, span: Span | None) -> Grid:
        """The grid of a video. Raises ClipError for a span outside the file."""
        assert header.fps is not None
        assert header.duration_s is not None
        begin, end = span or (0.0, header.duration_s)
        begin, end = max(0.0, begin), min(end, header.duration_s)
        if not begin < end:
            raise ClipError(f"span {span} s lies outside the file of {header.duration_s:.2f} s")
        length = spec.span_s(header.fps)
        if spec.stride is None:
            missing = spec.count - 1 - int((end - begin) * spec.fps + 1e-6)
        else:
            frames = round((end - begin) * header.fps)
            missing = spec.count - 1 - (frames - 1) // spec.stride
        return cls((begin, end), grid_start(spec.window, begin, end - begin, length), length, max(0, missing))


class Decoder:
    """Owns one child process that decodes; started at the first use, again after a crash or a deadline.

    use_decord: whether decord decodes where it can be trusted; else PyAV decodes all. Not for several threads at once.
    """

    def __init__(self, deadline_s: float, use_decord: bool = True) -> None:
        self.deadline_s = deadline_s
        self.use_decord = use_decord
        self._child: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._noise: IO[bytes] | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def header(self, location: str, kind: Kind, folder_fps: float | None = None) -> Header:
        """The file's header; with `folder_fps` that of a folder of frames. Raises ClipError with what was wrong."""
        reply, _ = self._ask({"op": "header", "path": location, "kind": kind, "folder_fps": folder_fps})
        if kind == "image":
            reply |= {"fps": None, "duration_s": None, "frame_count": None}
        return Header(kind=kind, folder=folder_fps is not None, **reply)

    def frames(
        self,
        location: str,
        kind: Kind,
        spec: FrameSpec,
        header: Header,
        span: Span | None = None,
        box: Box | None = None,
    ) -> Frames:
        """The clip's frames: those nearest to the grid's times, upright, shorter side scaled to `spec.size`.

        `box` (x0, y0, x1, y1 as fractions of the displayed picture) is cut out first. The frames of an image are one
        picture seen `spec.count` times, in read-only memory. Raises ClipError with what was wrong.
        """
        request: dict[str, Any] = {
            "op": "frames",
            "path": location,
            "kind": kind,
            "size": spec.size,
            "box": box,
            "header": asdict(header),
            "folder_fps": header.fps if header.folder else None,
            "decord": self.use_decord,
        }
        if kind == "video":
            assert header.fps is not None
            grid = Grid.of(header, spec, span)
            if grid.missing:
                have = grid.span[1] - grid.span[0]
                raise ClipError(f"is too short: {have:.2f} s for a grid of {grid.length_s:.2f} s")
            step = spec.step_s(header.fps)
            request["times_s"] = [grid.start_s + i * step for i in range(spec.count)]
            request["stride"] = spec.stride
        reply, fd = self._ask(request)
        assert fd is not None
        *native, width, height = reply["view"]
        shape = (reply["count"], height, width, 3)
        try:
            memory = mmap.mmap(fd, int(np.prod(shape)))
        finally:
            os.close(fd)
        images = np.frombuffer(memory, np.uint8).reshape(shape)
        times = np.array(reply["times_s"])
        if kind == "image":
            images = np.broadcast_to(images, (spec.count, *shape[1:]))
            times = np.zeros(spec.count)
        return Frames(images, times, (native[0], native[1]), reply["decoder"])

    def shots(
        self, location: str, span: Span | None, threshold: float | None, folder_fps: float | None = None
    ) -> dict[str, Any]:
        """Columns of the stage "shots" of a video: its frame rate and length, the cuts within `span` and how sharp it
        is from there. Without a threshold only rate and length. Raises ClipError."""
        request = {"op": "shots", "path": location, "kind": "video", "span": span, "threshold": threshold}
        reply, fd = self._ask(request | {"folder_fps": folder_fps})
        assert fd is not None
        count = reply["cuts"] + reply["sharp"]
        try:
            with mmap.mmap(fd, max(count, 1) * 8) as memory:
                values = np.frombuffer(memory[:], np.float64)[:count].tolist()
        finally:
            os.close(fd)
        cuts, sharpness = values[: reply["cuts"]], values[reply["cuts"] :]
        return {"fps": reply["fps"], "file_duration_s": reply["duration_s"], "cuts": cuts, "sharpness": sharpness}

    def close(self) -> None:
        """End the child."""
        if self._channel is not None:
            self._channel.close()
        if self._noise is not None:
            self._noise.close()
        if self._child is not None:
            self._child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck on dead storage: it ends when that does
                self._child.wait(5)
        self._child = self._channel = self._noise = None

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = ours
        self._noise = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)  # noqa: PTH109 - it imports what we would
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "stages.decode_child", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._noise,
            env=os.environ | {"PYTHONPATH": path},
        )
        theirs.close()
        ours.settimeout(START_S)
        try:
            ready = ours.recv(16)
        except TimeoutError:
            ready = b""
        if ready != b"ready":
            said = self._last_words()
            self.close()
            raise ClipError(f"decoding process does not start: {said}", transient=True)
        return ours

    def _last_words(self) -> str:
        assert self._noise is not None
        self._noise.seek(0)
        lines = self._noise.read()[-2000:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], int | None]:
        """Send a request and wait for the reply and, with frames, the descriptor of their memory."""
        until = time.monotonic() + self.deadline_s
        try:
            return self._ask_once(request, self.deadline_s)
        except ChildProcessError as died:
            # Decord crashes where the newer FFmpeg of PyAV does not.
            left = until - time.monotonic()
            if not request.get("decord") or died.args[0] == "SIGKILL" or left <= 0:
                raise _crash(died) from died
        try:
            return self._ask_once(request | {"decord": False}, left)
        except ChildProcessError as died:
            raise _crash(died) from died

    def _ask_once(self, request: dict[str, Any], deadline_s: float) -> tuple[dict[str, Any], int | None]:
        channel = self._channel or self._start()
        channel.settimeout(deadline_s)
        began = self._cpu_s()
        try:
            channel.send(json.dumps(request | {"deadline_s": deadline_s}).encode())
            message, fds, _, _ = socket.recv_fds(channel, 1 << 20, 1)
        except TimeoutError as late:
            spent = self._cpu_s() - began
            self.close()
            if spent >= GOT_TIME * deadline_s:
                raise ClipError(f"cannot be decoded within {self.deadline_s:g} s") from late
            raise ClipError(
                f"was not decoded within {self.deadline_s:g} s, of which the decoder worked {spent:.1f} s: "
                "storage or machine were too busy",
                transient=True,
            ) from late
        except (BrokenPipeError, ConnectionResetError):
            message, fds = b"", []
        if not message:
            raise ChildProcessError(self._cause_of_death())
        reply = json.loads(message)
        if "error" in reply:
            for fd in fds:
                os.close(fd)
            raise ClipError(reply["error"], reply["transient"])
        return reply, fds[0] if fds else None

    def _cpu_s(self) -> float:
        """Seconds of CPU time that the child has used."""
        assert self._child is not None
        fields = Path(f"/proc/{self._child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _cause_of_death(self) -> str:
        assert self._child is not None
        code = self._child.wait()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}: {self._last_words()}"
        self.close()
        return cause


def _crash(died: ChildProcessError) -> ClipError:
    """SIGKILL comes from outside, mostly for want of memory: the next run may have better luck."""
    return ClipError(f"decoder crashed ({died.args[0]})", transient=died.args[0] == "SIGKILL")
