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
from manifests.storage import Remote, is_uri
from stages.clip import Clip, Kind, escape_path

UNNAMEABLE = "its key has a part that is empty, . or .., which no path can hold; rename the object"
UNLISTABLE = (
    "its keys have a part that is empty, . or .., which no path can hold, and this store cannot list them; "
    "rename the objects"
)


def list_folder(source: FolderSource, ignored: Counter[str]) -> Iterator[Clip]:
    """The clips of a folder source, in the order of their paths' bytes.

    `ignored` counts, per extension, the files that are neither videos nor images. A directory, a special file, a broken
    link, or a link that leads out of the root becomes a clip with a `problem`. Links to directories are not followed.
    """
    if is_uri(source.root):
        yield from _walk_remote(source, Remote(source.root), "", ignored)
        return
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


def _walk_remote(source: FolderSource, folder: Remote, inside: str, ignored: Counter[str]) -> Iterator[Clip]:
    """The same of a folder at a URI; `inside` is its path below the root, empty or with a slash at its end."""
    try:
        entries = folder.entries(unnamed=True)
    except OSError as error:
        path = escape_path(inside.rstrip("/").encode()) or "."
        yield Clip(source.name, path, "video", "", problem=f"folder cannot be listed: {error.strerror}")
        return
    for entry in entries:
        path, kind = inside + entry.name, kind_of(entry.name.encode())
        if entry.is_folder and entry.name in ("", ".", ".."):
            yield from _unnameable(source, folder, inside, entry.name, ignored)
            continue
        if kind is not None:
            problem = f"is a directory, not {'an' if kind == 'image' else 'a'} {kind} file" if entry.is_folder else None
            yield Clip(source.name, escape_path(path.encode()), kind, entry.stamp, problem=problem)
        elif not entry.is_folder:
            ignored[extension(entry.name.encode()) or "(none)"] += 1
        if entry.is_folder:
            yield from _walk_remote(source, folder / entry.name, f"{path}/", ignored)


def _unnameable(source: FolderSource, folder: Remote, inside: str, name: str, ignored: Counter[str]) -> Iterator[Clip]:
    """The objects of a subfolder that a path cannot name, or would lead elsewhere by: clips with a `problem`."""
    try:
        keys = folder.below(name)
        problem = UNLISTABLE
    except OSError as error:
        keys, problem = [], f"folder cannot be listed: {error.strerror}"
    if not keys:
        yield Clip(source.name, escape_path(f"{inside}{name}/".encode()), "video", "", problem=problem)
    for key in keys:
        kind = kind_of(key.encode())
        if kind is None:
            ignored[extension(key.encode()) or "(none)"] += 1
        else:
            yield Clip(source.name, escape_path((inside + key).encode()), kind, "", problem=UNNAMEABLE)


def _clip(source: FolderSource, root: bytes, path: bytes, kind: Kind, seen: Look) -> Clip:
    relative = escape_path(os.path.relpath(path, root))
    return Clip(source=source.name, path=relative, kind=kind, stamp=seen.stamp, problem=seen.problem)
