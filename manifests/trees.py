"""Files and folders at a path or URI: copied here, listed, removed."""

from __future__ import annotations

import fnmatch
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from manifests.storage import Place, Remote


def mirror(folder: Remote, pattern: str, into: Path) -> list[Path]:
    """Copies of the folder's files that fit the pattern, in the order of their names, under `into`. Those that are
    there already are not fetched again; those that the folder no longer has are removed."""
    try:
        entries = [e for e in folder.entries() if not e.is_folder and fnmatch.fnmatchcase(e.name, pattern)]
    except FileNotFoundError:
        entries = []
    into.mkdir(parents=True, exist_ok=True)
    wanted = {into / f"{e.name}.{re.sub('[^A-Za-z0-9]', '', e.stamp)}": folder / e.name for e in entries}
    for path in into.iterdir():
        if path not in wanted:
            path.unlink()

    def fetch(path: Path, remote: Remote) -> None:
        part = path.with_name(f"{path.name}.part")
        with part.open("wb") as file:
            remote.download(file)
        part.rename(path)

    with ThreadPoolExecutor(16) as pool:
        lacking = [(path, remote) for path, remote in wanted.items() if not path.exists()]
        for done in [pool.submit(fetch, *pair) for pair in lacking]:
            done.result()
    return list(wanted)


def files_below(folder: Place) -> Iterator[Place]:
    """Every file in the folder and those below it, in the order of their paths; none where there is no such folder."""
    if isinstance(folder, Path):
        yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
        return
    try:
        entries = folder.entries()
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_folder:
            yield from files_below(folder / entry.name)
        else:
            yield folder / entry.name


@contextmanager
def local_copy(file: Place) -> Iterator[Path]:
    """Where the file's content can be read on this machine while the block runs. Raises OSError."""
    if isinstance(file, Path):
        yield file
        return
    with tempfile.TemporaryFile() as copy:  # it has no name that a killed process could leave behind
        file.download(copy)
        copy.flush()
        yield Path(f"/proc/self/fd/{copy.fileno()}")


def remove_tree(folder: Place) -> None:
    """Remove a folder and all that is in it; nothing where there is none."""
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
        return
    for file in files_below(folder):
        file.unlink(missing_ok=True)
