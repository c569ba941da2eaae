"""The clips of a run: those that the sources list, in the sources' order, or the windows of their videos."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

from curation.config import Config
from curation.sources import list_source
from curation.windows import Measure, list_windows
from stages.clip import Clip


def list_clips(
    config: Config, limit: int | None, ignored: Counter[str], measure: Measure | None = None, retry_failed: bool = False
) -> Iterator[Clip]:
    """The clips of all sources, the first `limit` of them. Raises ConfigError for an index that is none.

    `measure` finds the shots of sources with `windows`; without it their videos are listed uncut. `ignored` counts the
    files that are neither videos nor images.
    """

    def listed() -> Iterator[Clip]:
        for source in config.sources:
            if source.windows is None or measure is None:
                yield from list_source(source, ignored)
            else:
                yield from list_windows(config, source, limit, ignored, measure, retry_failed)

    return itertools.islice(listed(), limit)
