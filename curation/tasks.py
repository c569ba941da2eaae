"""The clips that still have something to measure, as tasks for a runner."""

from __future__ import annotations

from collections.abc import Iterator

from curation.store import clip_of
from curation.verdicts import Measurements
from curation.worker import Task


def _where(measurements: Measurements) -> str:
    codes = [str(code) for code, o in enumerate(measurements.outcomes) if o.status == "to_measure"]
    return f"code IN ({', '.join(codes)})"


def count_pending(measurements: Measurements) -> int:
    """How many clips have something to measure."""
    return measurements.rows(f"SELECT count(*) FROM facts WHERE {_where(measurements)}")[0][0]


def pending_tasks(measurements: Measurements) -> Iterator[Task]:
    """Those clips, each with all that is known of it, in the order of their ids."""
    for batch in measurements.whole("facts", _where(measurements)):
        for row in batch.to_pylist():
            known = {
                stage.name: {field.name: row[field.name] for field in stage.fields}
                for stage in measurements.stages
                if row[f"{stage.name}_known"]
            }
            yield Task(clip_of(row), known)
