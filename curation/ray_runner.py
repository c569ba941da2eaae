"""The Ray runner: pools of stage actors, frames passed from pool to pool as object references, one readable loop.

Tasks enter the first pool and move to the next until they are over. Frames stay in the object store and never pass
through the driver; how many are held at once is bounded in bytes. A lost worker costs its clips another try, each
alone; a clip that then loses MAX_DEATHS workers is written as failed, and the others go on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from curation.config import Config
from curation.errors import Stopped
from curation.placement import Group, plan_groups
from curation.worker import Task, Worker, failed_row, read_trace, trace_folder
from stages.frames import Frames

MAX_DEATHS = 2
REPLAN_S = 10.0


class _StageActor:
    """A worker in an actor of its own."""

    def __init__(self, config: Config, engines: Mapping[str, Mapping[str, Any]], group: Group) -> None:
        self._worker = Worker(config, engines, group.stages, "cuda:0" if group.gpus else "cpu")

    def ready(self) -> bool:
        return True

    def measure(self, hand_on: bool, tasks: list[Task], *frames: Frames | None) -> Any:
        """The tasks as measured, then, where frames are handed on, the frames of each as an object of its own."""
        measured, held = self._worker.measure(tasks, frames or None)
        return (measured, *held) if hand_on else measured


@dataclass
class _Job:
    """A task between pools, and its frames, if they are decoded.

    alone: it was with a worker that was lost; it shares no call now, so that the next loss tells whose fault it is.
    deaths: workers lost while it was alone with them.
    """

    task: Task
    frames: Any = None
    alone: bool = False
    deaths: int = 0


@dataclass
class _Actor:
    handle: Any
    group: int
    ready: bool = False
    jobs: list[_Job] = field(default_factory=list)
    refs: list[Any] = field(default_factory=list)
    since: float = 0.0


def connect() -> None:
    """Join the cluster that RAY_ADDRESS or this machine names, or start an embedded one."""
    if ray.is_initialized():
        return
    try:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises bare Exceptions here
        raise Stopped(f"Ray cannot be reached or started: {_last_line(error)}") from error


def cluster_size() -> tuple[float, float]:
    """CPUs and GPUs of the cluster."""
    resources = ray.cluster_resources()
    return resources.get("CPU", 0.0), resources.get("GPU", 0.0)


def fits(group: Group, resources: Mapping[str, float]) -> bool:
    """Whether a node of these resources can hold one actor of the group."""
    return group.cpus <= resources.get("CPU", 0) and group.gpus <= resources.get("GPU", 0)


class RayRunner:
    """Runs tasks on the pools that `plan_groups` lays out for the cluster as it is, and follows it as it changes."""

    def __init__(self, config: Config, engines: Mapping[str, Mapping[str, Any]]) -> None:
        self._config = config
        self._engines = engines
        self._groups = plan_groups(config, *cluster_size())
        for group in self._groups:
            if not any(fits(group, node["Resources"]) for node in ray.nodes() if node["Alive"]):
                raise Stopped(
                    f"no node has the {group.cpus:g} CPU and {group.gpus:g} GPU that a worker of {group.name} takes"
                )
        self._classes = [
            ray.remote(_StageActor).options(num_cpus=g.cpus, num_gpus=g.gpus, max_restarts=0) for g in self._groups
        ]
        self._last = len(self._groups) - 1
        self._actors: dict[Any, _Actor] = {}  # by the reference that is waited for
        self._waiting: list[deque[_Job]] = [deque() for _ in self._groups]
        self._failed_starts = 0
        self._last_ready: list[float] = []
        spec = config.frames
        # A picture of 16:9 at this shorter side, twice for what is on its way; taller ones are rarer.
        frame_bytes = spec.count * spec.size * int(spec.size * 16 / 9) * 3
        self._max_jobs = max(2, int(config.execution.max_in_flight_gib * 2**30 / frame_bytes))

    def run(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """Yield each task when nothing is left to do for it, in order of completion."""
        incoming = iter(tasks)
        exhausted = False
        replanned = time.monotonic()
        self._last_ready = [replanned] * len(self._groups)
        shutil.rmtree(trace_folder(Path(self._config.output)), ignore_errors=True)
        for index, group in enumerate(self._groups):
            for _ in range(group.actors):
                self._start_actor(index)
        try:
            while True:
                while (
                    not exhausted and self._in_flight() < self._max_jobs and len(self._waiting[0]) < 2 * self._width()
                ):
                    task = next(incoming, None)
                    if task is None:
                        exhausted = True
                    else:
                        self._waiting[0].append(_Job(task))
                self._submit()
                if exhausted and not self._in_flight():
                    return
                self._refuse_to_hang()
                yield from self._collect()
                if time.monotonic() - replanned > REPLAN_S:
                    replanned = time.monotonic()
                    self._follow_cluster()
        finally:
            for actor in self._actors.values():
                ray.kill(actor.handle)
            self._actors.clear()
            shutil.rmtree(trace_folder(Path(self._config.output)), ignore_errors=True)

    def _width(self) -> int:
        return sum(g.batch * max(1, g.actors) for g in self._groups)

    def _in_flight(self) -> int:
        return sum(map(len, self._waiting)) + sum(len(actor.jobs) for actor in self._actors.values())

    def _start_actor(self, group: int) -> None:
        handle: Any = self._classes[group].remote(self._config, self._engines, self._groups[group])
        self._actors[handle.ready.remote()] = _Actor(handle, group)

    def _idle(self) -> dict[int, list[tuple[Any, _Actor]]]:
        idle: dict[int, list[tuple[Any, _Actor]]] = {}
        for ref, actor in self._actors.items():
            if actor.ready and not actor.jobs:
                idle.setdefault(actor.group, []).append((ref, actor))
        return idle

    def _submit(self) -> None:
        """Give waiting jobs to idle actors, the last pools first, so that frames leave the store soon."""
        idle = self._idle()
        for group in reversed(range(len(self._groups))):
            queue = self._waiting[group]
            for key, actor in idle.get(group, []):
                if not queue:
                    break
                size = 1 if queue[0].alone else self._groups[group].batch
                jobs = [queue.popleft()]
                while queue and len(jobs) < size and not queue[0].alone:
                    jobs.append(queue.popleft())
                frames = [job.frames for job in jobs] if group else []
                hand_on = group < self._last
                refs = actor.handle.measure.options(num_returns=1 + len(jobs) if hand_on else 1).remote(
                    hand_on, [job.task for job in jobs], *frames
                )
                del self._actors[key]
                actor.jobs, actor.since = jobs, time.monotonic()
                actor.refs = refs if hand_on else [refs]
                self._actors[actor.refs[0]] = actor

    def _collect(self) -> Iterator[Task]:
        """Wait for something to happen and yield the tasks that are over."""
        pending = [ref for ref, actor in self._actors.items() if actor.jobs or not actor.ready]
        done, _ = ray.wait(pending, num_returns=1, timeout=1.0) if pending else ([], [])
        for ref in done:
            actor = self._actors[ref]
            try:
                result = ray.get(ref)
            except RayActorError as error:
                if error.actor_init_failed:
                    raise Stopped(f"a worker cannot start: {_last_line(error)}") from None
                yield from self._lost(ref, "the worker process ended (crashed, killed, or out of memory)")
            except RayTaskError as error:
                yield from self._lost(ref, _last_line(error))
            except RayError as error:
                # Frames that were lost with the node that held them: decode them again.
                yield from self._lost(ref, _last_line(error))
            else:
                if actor.ready:
                    yield from self._advance(actor, result)
                actor.ready = True
                self._failed_starts = 0
        yield from self._stop_overdue()

    def _advance(self, actor: _Actor, tasks: list[Task]) -> Iterator[Task]:
        frames = actor.refs[1:] or [None] * len(tasks)
        for job, task, ref in zip(actor.jobs, tasks, frames, strict=True):
            if task.over or actor.group == self._last:
                yield task
            else:
                self._waiting[actor.group + 1].append(_Job(task, ref, job.alone, job.deaths))
        actor.jobs, actor.refs = [], []

    def _stop_overdue(self) -> Iterator[Task]:
        """Stop workers that take longer than their clips may."""
        for ref, actor in list(self._actors.items()):
            allowed = self._config.execution.clip_deadline_s * len(actor.jobs)
            if actor.jobs and time.monotonic() - actor.since > allowed:
                ray.kill(actor.handle)
                yield from self._lost(ref, f"did not finish within {allowed:g} s")

    def _lost(self, ref: Any, why: str) -> Iterator[Task]:
        """Replace a lost worker and try its jobs again from the first pool, each alone; yield those tried enough."""
        actor = self._actors.pop(ref)
        if not actor.ready:
            self._failed_starts += 1
            if self._failed_starts >= 3:
                raise Stopped(f"workers die while starting: {why}")
        self._start_actor(actor.group)
        for job in actor.jobs:
            job.deaths += job.alone
            job.alone = job.task.traced = True
            job.frames = None
            if job.deaths < MAX_DEATHS:
                self._waiting[0].append(job)
            else:
                yield self._give_up(job.task, why)

    def _give_up(self, task: Task, why: str) -> Task:
        stage, new = read_trace(Path(self._config.output), task.clip)
        if stage is None:  # lost before its first stage
            stage = next(c.stage for c in self._config.stages if c.stage not in task.known)
        text = f"its worker was lost {MAX_DEATHS} times, the last time at {stage}: {why}"
        return dataclasses.replace(
            task, new={**task.new, **new, stage: failed_row(task.clip, text, transient=True)}, over=True
        )

    def _follow_cluster(self) -> None:
        """Add actors when nodes have come; actors of nodes that went are replaced when they are found lost."""
        try:
            planned = plan_groups(self._config, *cluster_size())
        except Stopped:
            return  # nodes are gone for now; what is running goes on
        for index, group in enumerate(planned):
            have = sum(actor.group == index for actor in self._actors.values())
            for _ in range(group.actors - have):
                self._start_actor(index)

    def _refuse_to_hang(self) -> None:
        """Stop when a pool has had no worker for too long: other work holds the cluster, or no node is large enough."""
        now = time.monotonic()
        ready = {actor.group for actor in self._actors.values() if actor.ready}
        for index, group in enumerate(self._groups):
            if index in ready:
                self._last_ready[index] = now
            waited = now - self._last_ready[index]
            if waited > self._config.execution.start_timeout_s:
                free, (cpus, gpus) = ray.available_resources(), cluster_size()
                raise Stopped(
                    f"no worker for {group.name} could be started in {waited:.0f} s: one takes {group.cpus:g} CPU and "
                    f"{group.gpus:g} GPU, the cluster has {free.get('CPU', 0):g} of {cpus:g} CPUs and "
                    f"{free.get('GPU', 0):g} of {gpus:g} GPUs free"
                )


def _last_line(error: BaseException) -> str:
    """What went wrong, without Ray's traceback."""
    lines = str(error).strip().splitlines()
    return lines[-1][:300] if lines else type(error).__name__


def shutdown() -> None:
    """Leave the cluster, and end it if `connect` started it; otherwise that happens when the process ends."""
    with contextlib.suppress(RayError):
        ray.shutdown()
