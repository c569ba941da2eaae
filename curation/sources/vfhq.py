"""Kind "vfhq": one meta file a clip, and the clips as folders of frames or as videos.

    ROOT/meta_info/Clip+<video>+P<person>+C<clip>+F<first>-<last>.txt     (`meta`)
    ROOT/processed/<clip>/00000000.png ...      cropped frames, also as processed/<video>/<clip>/ (`clips`)
    ROOT/processed/<clip>.mp4                   or a video of them
    ROOT/raw/<video>.mp4                        whole videos, with `raw: true` (.webm, .mkv, ... do too)

https://liangbinxie.github.io/projects/vfhq/ has the meta files and the frames. A meta file's lines "H:", "W:", "FPS:"
and "CROP:" (x0 y0 x1 y1 in pixels of that H and W) are read; of the frames first..last in the file's name the
published script leaves out one at either end. A folder of frames has the meta's frame rate. Of a raw video range and
box are applied, else they are provenance.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from curation.config import VfhqSource
from curation.errors import ConfigError
from curation.sources.celebv import malformed
from curation.sources.files import Look, safe_name, short
from curation.sources.folders import Folder, each, find_video, folder_of
from curation.sources.index import BadEntry, Named
from stages.clip import Clip, Entry, escape_path

MAX_META_BYTES = 1 << 20
NAME = re.compile(r"Clip\+(.+)\+P\d+\+C\d+\+F(\d{1,9})-(\d{1,9})")
LINE = re.compile(rb"^(H|W|FPS|CROP)\b[ \t:]*([^\r\n]*)", re.MULTILINE)


def list_vfhq(source: VfhqSource) -> Iterator[Clip]:
    """The clips of the meta files, by name; one without its frames, or malformed, is a clip with a `problem`."""
    where = f"{source.root}/{source.meta}"
    metas = folder_of(source.root, source.meta)
    try:
        found = [name for name in metas.names() if name.lower().endswith(".txt")]
    except OSError as error:
        raise ConfigError(f"{where}: cannot be listed: {error.strerror}") from None
    if not found:
        raise ConfigError(f"{where}: holds no meta files; expected Clip+<video>+P0+C0+F<a>-<b>.txt")
    folder = folder_of(source.root, source.folder)

    def clip(numbered: tuple[int, str]) -> Clip:
        number, name = numbered
        try:
            return _clip(source, name, metas, folder)
        except BadEntry as error:
            path = escape_path(os.fsencode(name))
            named = Named(number, path, {})
            return malformed(source.name, str(PurePosixPath(source.meta, path)), named, str(error))

    yield from each(source.root, clip, enumerate(found, start=1))


def _clip(source: VfhqSource, file: str, metas: Folder, folder: Folder) -> Clip:
    stem = file[:-4]
    parts = NAME.fullmatch(stem)
    if parts is None or safe_name(stem) is not None:
        raise BadEntry(f"its name: expected Clip+<video>+P<n>+C<n>+F<first>-<last>, got {short(stem)}")
    video, first, last = parts[1], int(parts[2]), int(parts[3])
    if last - first < 2:
        raise BadEntry(f"its name: expected a range of frames, got {first} to {last}")
    fps, box = _meta(metas, file)
    span = (first + 1) / fps, last / fps
    entry = Entry(video, span, box)
    if source.raw:
        name, seen = find_video(folder, video)
        path = escape_path(os.fsencode(str(PurePosixPath(source.folder, name))))
        return Clip(source.name, path, "video", seen.stamp, span, box, seen.problem, entry=entry)
    relative, seen, folder_fps = _frames(source, folder, video, stem, fps)
    path = escape_path(os.fsencode(relative))
    return Clip(source.name, path, "video", seen.stamp, problem=seen.problem, folder_fps=folder_fps, entry=entry)


def _frames(source: VfhqSource, folder: Folder, video: str, stem: str, fps: float) -> tuple[str, Look, float | None]:
    """Path, look and frame rate of the clip: a folder of frames where there is one, else a video."""
    for parts in ((stem,), (video, stem)):
        if (seen := folder.frames(*parts)) is not None:
            stamp = f"{seen.stamp}-{fps:g}fps" if seen.problem is None else ""
            return str(PurePosixPath(source.folder, *parts)), Look(stamp, seen.problem), fps
    name, seen = find_video(folder, stem)
    return str(PurePosixPath(source.folder, name)), seen, None


def _meta(metas: Folder, name: str) -> tuple[float, tuple[float, float, float, float]]:
    """Frame rate and box, as fractions of the picture, of a meta file."""
    try:
        content = metas.read(name, MAX_META_BYTES)
    except ValueError as error:
        raise BadEntry(str(error)) from None
    found = {key.decode(): text.split() for key, text in reversed(LINE.findall(content or b""))}
    numbers = {}
    for key, count in (("H", 1), ("W", 1), ("FPS", 1), ("CROP", 4)):
        if key not in found:
            raise BadEntry(f"has no line {key}")
        try:
            numbers[key] = [float(word) for word in found[key][-count:]]
        except ValueError:
            numbers[key] = []
        if len(numbers[key]) != count or not all(map(math.isfinite, numbers[key])):
            raise BadEntry(f"{key}: expected {count} number{'s' * (count > 1)}, got {short(b' '.join(found[key]))}")
    (height,), (width,), (fps,), (x0, y0, x1, y1) = numbers["H"], numbers["W"], numbers["FPS"], numbers["CROP"]
    if not 0 < fps <= 1000:
        raise BadEntry(f"FPS: expected a frame rate of at most 1000, got {fps:g}")
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise BadEntry(
            f"CROP: expected a box x0 y0 x1 y1 in the {width:g}x{height:g} picture, got {x0:g} {y0:g} {x1:g} {y1:g}"
        )
    return fps, (x0 / width, y0 / height, x1 / width, y1 / height)
