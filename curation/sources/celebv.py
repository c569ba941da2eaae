"""Kinds "celebv_hq" and "celebv_text": a JSON index, and the clips that the projects' own tool cut and cropped.

    ROOT/celebvhq_info.json | celebvtext_info.json      the index (`annotations`)
    ROOT/processed/<clip>.mp4                           cut clips (`clips`)
    ROOT/raw/<ytb_id>.mp4                               whole videos, with `raw: true` (.webm, .mkv, ... do too)
    ROOT/texts/<attribute>/<clip>.txt                   CelebV-Text's descriptions, one a line (`texts`)

https://github.com/CelebV-HQ/CelebV-HQ and https://github.com/celebv-text/CelebV-Text say what the index holds: per clip
`ytb_id`, `duration` {start_sec, end_sec} and `bbox` {top, bottom, left, right} as fractions of the picture. Keys may or
may not end in ".mp4", and CelebV-Text's file has the clips at its top level. Of a cut clip times and box are kept as
provenance; of a raw video they are applied, the box widened by 2 % of the picture as the projects' tool does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePosixPath

from curation.config import CelebvHqSource, CelebvTextSource
from curation.sources.files import MISSING, VIDEO_EXTENSIONS, Look, look, read, real_folder
from curation.sources.index import BadEntry, Named, number_at, read_entries, text_at
from stages.clip import Clip, Entry, escape_path

MARGIN = 0.02
MAX_TEXT_BYTES = 1 << 16
# Column by folder of texts.
TEXTS = {
    "text_action": "action_dur",
    "text_emotion": "emotion",
    "text_appearance": "face40_details_new",
    "text_light_direction": "light_dir",
    "text_light_intensity": "light_intensity",
    "text_light_color": "light_color_temp",
}


def list_celebv(source: CelebvHqSource | CelebvTextSource) -> Iterator[Clip]:
    """The clips of the index in its order; an entry without its file, or malformed, is a clip with a `problem`."""
    folder = real_folder(source.root, source.folder)
    for named in read_entries(source.root, source.annotations):
        try:
            yield _clip(source, named, folder)
        except BadEntry as error:
            yield malformed(source.name, source.annotations, named, str(error))


def malformed(source: str, index: str, named: Named, problem: str) -> Clip:
    """The clip that stands for an entry that cannot be used: it has no file, its path names the index."""
    text = f"entry {named.number} of {index} is malformed: {problem}"
    return Clip(source, f"{index}#{named.number}", "video", "", problem=text)


def _clip(source: CelebvHqSource | CelebvTextSource, named: Named, folder: bytes) -> Clip:
    if named.problem is not None:
        raise BadEntry(named.problem)
    video = text_at(named.value, "ytb_id")
    span = number_at(named.value, "duration", "start_sec"), number_at(named.value, "duration", "end_sec")
    if not 0 <= span[0] < span[1]:
        raise BadEntry(f"duration: expected 0 <= start_sec < end_sec, got {span[0]:g} and {span[1]:g}")
    x0, x1, y0, y1 = (number_at(named.value, "bbox", side) for side in ("left", "right", "top", "bottom"))
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise BadEntry(
            "bbox: expected fractions of the picture with left < right and top < bottom, "
            f"got left {x0:g}, right {x1:g}, top {y0:g}, bottom {y1:g}"
        )
    stem = named.key.removesuffix(".mp4")
    texts = _texts(source, stem)
    entry = Entry(video, span, (x0, y0, x1, y1), texts)
    if not source.raw:
        name = f"{stem}.mp4"
        seen = look(os.path.join(folder, os.fsencode(name)), folder, "video")  # noqa: PTH118
        return Clip(source.name, _path(source.folder, name), "video", seen.stamp, problem=seen.problem, entry=entry)
    name, seen = find_video(folder, video)
    box = max(x0 - MARGIN, 0.0), max(y0 - MARGIN, 0.0), min(x1 + MARGIN, 1.0), min(y1 + MARGIN, 1.0)
    return Clip(source.name, _path(source.folder, name), "video", seen.stamp, span, box, seen.problem, entry=entry)


def find_video(folder: bytes, stem: str) -> tuple[str, Look]:
    """Name and look of the video of this stem, whatever its extension; the .mp4 where there is none."""
    found = f"{stem}.mp4", Look("", MISSING)
    for extension in ("mp4", *sorted(VIDEO_EXTENSIONS - {"mp4"})):
        name = f"{stem}.{extension}"
        seen = look(os.path.join(folder, os.fsencode(name)), folder, "video")  # noqa: PTH118
        if seen.problem != MISSING:
            return name, seen
    return found


def _texts(source: CelebvHqSource | CelebvTextSource, stem: str) -> dict[str, list[str]]:
    if not isinstance(source, CelebvTextSource) or source.texts is None:
        return {}
    found = {}
    for column, attribute in TEXTS.items():
        folder = real_folder(source.root, str(PurePosixPath(source.texts, attribute)))
        try:
            content = read(os.path.join(folder, os.fsencode(f"{stem}.txt")), MAX_TEXT_BYTES)  # noqa: PTH118
        except ValueError as error:
            raise BadEntry(f"its text {source.texts}/{attribute}/{stem}.txt {error}") from None
        if content is not None:
            lines = content.decode("utf-8", "replace").splitlines()
            found[column] = [line.strip() for line in lines if line.strip()]
    return found


def _path(folder: str, name: str) -> str:
    return escape_path(os.fsencode(str(PurePosixPath(folder, name))))
