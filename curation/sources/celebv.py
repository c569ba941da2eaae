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
from curation.sources.folders import Folder, each, find_video, folder_of
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

Texts = dict[str, tuple[str, Folder]]  # by column: the folder's path below the root, and the folder


def list_celebv(source: CelebvHqSource | CelebvTextSource) -> Iterator[Clip]:
    """The clips of the index in its order; an entry without its file, or malformed, is a clip with a `problem`."""
    folder = folder_of(source.root, source.folder)
    texts: Texts = {}
    if isinstance(source, CelebvTextSource) and source.texts is not None:
        for column, attribute in TEXTS.items():
            relative = f"{source.texts}/{attribute}"
            texts[column] = relative, folder_of(source.root, relative)

    def clip(named: Named) -> tuple[Named, Clip]:
        try:
            return named, _clip(source, named, folder, texts)
        except BadEntry as error:
            return named, malformed(source.name, source.annotations, named, str(error))

    seen: set[int] = set()
    for named, found in each(source.root, clip, read_entries(source.root, source.annotations)):
        if source.raw:  # two entries may ask for one span and box of a video
            known = hash(found.clip_id)
            if known in seen:
                found = malformed(source.name, source.annotations, named, "is the clip of an earlier entry")
            seen.add(known)
        yield found


def malformed(source: str, index: str, named: Named, problem: str) -> Clip:
    """The clip that stands for an entry that cannot be used: it has no file, its path names the index."""
    text = f"entry {named.number} of {index} is malformed: {problem}"
    return Clip(source, f"{index}#{named.number}", "video", "", problem=text)


def _clip(source: CelebvHqSource | CelebvTextSource, named: Named, folder: Folder, texts: Texts) -> Clip:
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
    entry = Entry(video, span, (x0, y0, x1, y1), {k: v for k, v in _texts(texts, stem) if v is not None})
    if not source.raw:
        name = f"{stem}.mp4"
        seen = folder.look(name, "video")
        return Clip(source.name, _path(source.folder, name), "video", seen.stamp, problem=seen.problem, entry=entry)
    name, seen = find_video(folder, video)
    box = max(x0 - MARGIN, 0.0), max(y0 - MARGIN, 0.0), min(x1 + MARGIN, 1.0), min(y1 + MARGIN, 1.0)
    return Clip(source.name, _path(source.folder, name), "video", seen.stamp, span, box, seen.problem, entry=entry)


def _texts(texts: Texts, stem: str) -> Iterator[tuple[str, list[str] | None]]:
    """Column and lines of each text of a clip; None where it has none."""
    for column, (relative, folder) in texts.items():
        try:
            content = folder.read(f"{stem}.txt", MAX_TEXT_BYTES)
        except ValueError as error:
            raise BadEntry(f"its text {relative}/{stem}.txt {error}") from None
        lines = [line.strip() for line in (content or b"").decode("utf-8", "replace").splitlines()]
        yield column, None if content is None else [line for line in lines if line]


def _path(folder: str, name: str) -> str:
    return escape_path(os.fsencode(str(PurePosixPath(folder, name))))
