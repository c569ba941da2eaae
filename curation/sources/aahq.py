"""Kind "aahq": painted portraits, aligned; each is a still clip with M = 0.

    ROOT/AAHQ-dataset.json           the index: per aligned image `raw_name`, `image_url` and landmarks (`annotations`)
    ROOT/aligned/<name>              what the project's face_alignment.py wrote (`images`)

https://github.com/onion-liu/aahq-dataset names about 25,000 images; those that could not be downloaded lack their file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from curation.config import AahqSource
from curation.sources.celebv import malformed
from curation.sources.files import kind_of, short
from curation.sources.folders import Folder, folder_of
from curation.sources.index import BadEntry, Named, read_entries, text_at
from stages.clip import Clip, Entry, escape_path


def list_aahq(source: AahqSource) -> Iterator[Clip]:
    """The images of the index in its order; an entry without its file, or malformed, is a clip with a `problem`."""
    folder = folder_of(source.root, source.images)

    def clip(named: Named) -> Clip:
        try:
            return _clip(source, named, folder)
        except BadEntry as error:
            return replace(malformed(source.name, source.annotations, named, str(error)), kind="image")

    yield from map(clip, read_entries(source.root, source.annotations))


def _clip(source: AahqSource, named: Named, folder: Folder) -> Clip:
    if named.problem is not None:
        raise BadEntry(named.problem)
    if kind_of(os.fsencode(named.key)) != "image":
        raise BadEntry(f"expected an image's file name, got {short(named.key)}")
    entry = Entry(text_at(named.value, "raw_name"))
    seen = folder.look(named.key, "image")
    path = escape_path(os.fsencode(str(PurePosixPath(source.images, named.key))))
    return Clip(source.name, path, "image", seen.stamp, problem=seen.problem, entry=entry)
