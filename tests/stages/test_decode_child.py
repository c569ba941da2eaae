"""The decoding process: it crashes, hangs, or is killed, and costs a clip at most."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stages.base import ClipError
from stages.decode import Decoder
from stages.frames import Frames
from tests.stages.decoding import SPEC, read, true_frames


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
