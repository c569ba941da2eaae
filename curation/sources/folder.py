"""Kind "folder": videos and images under a folder, recursively.

Listing reads no file's contents. Nothing is dropped in silence: a file with a video's or an image's extension becomes a
clip even if it is broken, and files with other extensions are counted.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

from curation.config import FolderSource
from curation.sources.files import MISSING, Look, extension, kind_of, look
from stages.clip import Clip, Kind, escape_path


def list_folder(source: FolderSource, ignored: Counter[str]) -> Iterator[Clip]:
    """The clips of a folder source, in the order of their paths' bytes.

    `ignored` counts, per extension, the files that are neither videos nor images. A directory, a special file, a broken
    link, or a link that leads out of the root becomes a clip with a `problem`. Links to directories are not followed.
    """
    root = os.path.realpath(os.fsencode(source.root))
    yield from _walk(source, root, root, ignored)


def _walk(source: FolderSource, root: bytes, folder: bytes, ignored: Counter[str]) -> Iterator[Clip]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        yield _clip(source, root, folder, "video", Look("", f"folder cannot be listed: {error.strerror}"))
        return
    for entry in entries:
        kind = kind_of(entry.name)
        is_folder = entry.is_dir(follow_symlinks=False)
        if kind is not None:
            seen = look(entry.path, root, kind)
            if seen.problem == MISSING:
                seen = Look("", "vanished while it was listed")
            yield _clip(source, root, entry.path, kind, seen)
        elif entry.is_symlink() and entry.is_dir():
            ignored["(link to a folder)"] += 1
        elif not is_folder:
            ignored[extension(entry.name) or "(none)"] += 1
        if is_folder:
            yield from _walk(source, root, entry.path, ignored)


def _clip(source: FolderSource, root: bytes, path: bytes, kind: Kind, seen: Look) -> Clip:
    relative = escape_path(os.path.relpath(path, root))
    return Clip(source=source.name, path=relative, kind=kind, stamp=seen.stamp, problem=seen.problem)
