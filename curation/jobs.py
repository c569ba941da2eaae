"""What the Ray runner knows of the tasks that are on their way, and of the actors that they are with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from curation.tasks import Task


@dataclass
class Job:
    """A task between pools, and its frames, if they are decoded.

    alone: it was with a worker that was lost; it shares no call now, so that the next loss tells whose fault it is.
    deaths: workers lost while it was alone with them. lost: tries that ended with a node.
    """

    task: Task
    frames: Any = None
    alone: bool = False
    deaths: int = 0
    lost: int = 0


@dataclass
class Call:
    """Jobs that an actor is at, and what it returns: the tasks, then the frames of each where it hands them on."""

    jobs: list[Job]
    refs: list[Any]


@dataclass
class Actor:
    """calls: by the reference that is waited for. since: when it found its place, the last call ended, or the first
    began. placed: its process runs. node: known once it is ready. leaving: it gets no more calls, and ends when it has
    none."""

    handle: Any
    group: int
    placed: bool = False
    node: str | None = None
    leaving: bool = False
    calls: dict[Any, Call] = field(default_factory=dict)
    since: float = 0.0

    @property
    def ready(self) -> bool:
        return self.node is not None

    def jobs(self) -> list[Job]:
        return [job for call in self.calls.values() for job in call.jobs]

    def takes(self, job: Job, calls: int) -> bool:
        """Whether it may be given a call that begins with this job, of `calls` at once."""
        jobs = self.jobs()
        if not self.ready or self.leaving:
            return False
        return not jobs or (len(self.calls) < calls and not any(j.alone for j in [job, *jobs]))
