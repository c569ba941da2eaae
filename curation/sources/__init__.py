"""What the sources hold: every clip, and what is wrong with those that cannot be opened. One module a layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from curation.config import AahqSource, FolderSource, Source, VfhqSource
from curation.sources.aahq import list_aahq
from curation.sources.celebv import list_celebv
from curation.sources.folder import list_folder
from curation.sources.vfhq import list_vfhq
from stages.clip import Clip


def list_source(source: Source, ignored: Counter[str]) -> Iterator[Clip]:
    """The clips of one source, one for each file or entry of its index. Raises ConfigError for an index that is none.

    `ignored` counts the files that a folder source passes over.
    """
    if isinstance(source, FolderSource):
        return list_folder(source, ignored)
    if isinstance(source, VfhqSource):
        return list_vfhq(source)
    return list_aahq(source) if isinstance(source, AahqSource) else list_celebv(source)
