"""Hashes that a machine computes once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages import digests

READS = """
import sys
from pathlib import Path
from stages import digests
read = digests._read
digests.LARGE = 1
digests._read = lambda path: print("read", path.name) or read(path)
print(digests.digest(Path(sys.argv[1])))
"""


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def processes(path: Path, home: Path, count: int = 1) -> list[list[str]]:
    """What so many processes at once print, that hash `path`: a line if they read it, and what they found."""
    command = [sys.executable, "-c", READS, str(path)]
    env = os.environ | {"HOME": str(home)}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for _ in range(count)]
    return [process.communicate(timeout=120)[0].splitlines() for process in running]


def test_the_processes_of_a_machine_read_a_file_once(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"large")
    found = processes(path, tmp_path, 3)
    assert sorted(found, key=len) == [[sha256(b"large")], [sha256(b"large")], ["read weights.bin", sha256(b"large")]]

    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"other")
    os.utime(path, ns=times)
    assert processes(path, tmp_path) == [["read weights.bin", sha256(b"other")]], "size and time are what they were"
    assert processes(path, tmp_path) == [[sha256(b"other")]]

    (note,) = (tmp_path / ".cache" / "human-motion" / "sha256").iterdir()
    note.write_text(note.read_text()[:-1])
    assert processes(path, tmp_path) == [["read weights.bin", sha256(b"other")]], "half a note is none"


def test_anew_trusts_no_note_and_a_home_that_cannot_be_written_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(digests, "LARGE", 1)
    path = tmp_path / "weights.bin"
    path.write_bytes(b"large")
    assert digests.digest(path) == sha256(b"large")
    (note,) = (tmp_path / ".cache" / "human-motion" / "sha256").iterdir()
    note.write_text(note.read_text().replace(sha256(b"large"), sha256(b"wrong")))
    digests._known.cache_clear()
    assert digests.digest(path) == sha256(b"wrong"), "the note was read"
    assert digests.digest(path, anew=True) == sha256(b"large")

    monkeypatch.setenv("HOME", "/proc/nowhere")
    digests._known.cache_clear()
    assert digests.digest(path) == sha256(b"large")


def test_small_files_leave_no_note_and_a_folder_has_one_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    before = digests.digest(folder)
    assert before == sha256(f"{sha256(b'1')}  model.safetensors".encode())
    (folder / "config.json").write_bytes(b"2")
    assert digests.digest(folder) != before
    assert not (tmp_path / "home").exists()
