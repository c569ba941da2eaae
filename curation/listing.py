"""The clips of a run: those that the sources list, in the sources' order."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from curation.config import Source
from curation.sources import list_source
from stages.clip import Clip


def list_clips(sources: Sequence[Source], limit: int | None, ignored: Counter[str]) -> Iterator[Clip]:
    """The clips of all sources, the first `limit` of them; see `curation.sources.list_source`."""
    return itertools.islice(itertools.chain.from_iterable(list_source(source, ignored) for source in sources), limit)
