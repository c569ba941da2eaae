"""What the Ray runner knows of the tasks that are on their way, and of the actors that they are with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from curation.config import Config
from curation.tasks import Task
from curation.worker import failed_row, read_trace
from manifests.storage import place


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


def given_up(job: Job, why: str, config: Config) -> Task:
    """The job's task, failed for now at the stage at which its last worker was lost."""
    task = job.task
    stage, new = read_trace(place(config.output), task.clip)
    if stage is None:  # lost before its first stage
        stage = next(c.stage for c in config.stages if c.stage not in task.known)
    text = f"its worker was lost {job.deaths + job.lost} times, the last time at {stage}: {why}"
    return replace(task, new={**task.new, **new, stage: failed_row(task.clip, text, transient=True)}, over=True)
