"""The in-process runner: the same stages without Ray, for tests, for debugging, and as the baseline of Ray's cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from curation.config import Config
from curation.worker import Task, Worker


def run_in_process(config: Config, engines: Mapping[str, Mapping[str, Any]], tasks: Iterable[Task]) -> Iterator[Task]:
    """Measure the tasks one after the other and yield each when nothing is left to do for it."""
    worker = Worker(config, engines)
    try:
        for task in tasks:
            measured, _ = worker.measure([task])
            yield measured[0]
    finally:
        worker.close()
