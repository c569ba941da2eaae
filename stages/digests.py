"""Hashes of large files, each computed once on a machine: its processes, and later runs, read what the first has found.

Gigabytes take minutes to hash, and every actor checks its model files. What was found is kept in a folder of the user's
with the file's size, times and inode; a file that was touched since is hashed again. `anew` trusts nothing of that.
"""

from __future__ import annotations

import fcntl
import hashlib
from functools import lru_cache
from pathlib import Path

CACHE = "~/.cache/human-motion/sha256"
LARGE = 2**24  # bytes; below, reading the file again costs no more than asking


def digest(path: Path, anew: bool = False) -> str:
    """sha256 of a file, hex; of a folder, that of its sorted file names and their hashes. `anew`: read in any case."""
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
        lines = [f"{digest(p, anew)}  {p.relative_to(path).as_posix()}" for p in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return _read(path) if anew else _known(path, _stamp(path))


def _stamp(path: Path) -> str:
    """What changes when a file does: size, time of its content, time of its inode (which no one can set), inode."""
    stat = path.stat()
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


@lru_cache(maxsize=1024)
def _known(path: Path, stamp: str) -> str:
    if path.stat().st_size < LARGE:
        return _read(path)
    note = Path(CACHE).expanduser() / hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        file = note.open("a+")
    except OSError:  # a home that cannot be written
        return _read(path)
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)  # others that want this hash wait for it
        file.seek(0)
        kept, _, found = file.read().strip().partition(": ")
        if kept == stamp and len(found) == 64:
            return found
        found = _read(path)
        if _stamp(path) == stamp:  # else it was written to meanwhile
            file.truncate(0)
            file.write(f"{stamp}: {found}")
        return found


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
