"""The Ray runner: pools of stage actors, frames passed from pool to pool as object references, one readable loop.

Tasks enter the first pool and move to the next until they are over. Frames stay in the object store and never pass
through the driver; how many are held at once is bounded in bytes. A lost worker costs its clips another try, each
alone; a clip that then loses MAX_DEATHS workers is written as failed, and the others go on. A lost node is no clip's
fault: what was at work there, and frames that lay there, cost another try and nothing else.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, ObjectLostError, RayActorError, RayError

from curation.cluster import Metrics, cluster_size, fits, last_line
from curation.config import Config
from curation.errors import Stopped
from curation.jobs import Actor, Call, Job, given_up
from curation.placement import Group, plan_groups
from curation.worker import Task, Worker, trace_folder
from manifests.shards import remove_unfinished
from manifests.storage import place
from manifests.trees import remove_tree
from stages.frames import Frames

MAX_DEATHS = 2
MAX_TRIES = 10  # that nodes may cost a clip: one that takes whole nodes down must end too
REPLAN_S = 10.0
SET_UP_S = 3600.0  # to load an actor's models: tens of GB, fetched first where they are missing


class _StageActor:
    """A worker in an actor of its own."""

    def placed(self) -> None:
        """It runs."""

    def set_up(self, config: Config, engines: Mapping[str, Mapping[str, Any]], group: Group) -> str:
        """Make the worker, which loads its models; returns the node that it runs on."""
        self._worker = Worker(config, engines, group.stages, "cuda:0" if group.gpus else "cpu")
        return ray.get_runtime_context().get_node_id()

    def measure(self, hand_on: bool, tasks: list[Task], *frames: Frames | None) -> Any:
        """The tasks as measured, then, where frames are handed on, the frames of each as an object of its own."""
        measured, held = self._worker.measure(tasks, frames or None)
        return (measured, *held) if hand_on else measured


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
            ray.remote(_StageActor).options(num_cpus=g.cpus, num_gpus=g.gpus, max_restarts=0, max_concurrency=g.calls)
            for g in self._groups
        ]
        self._metrics = Metrics()
        self._last = len(self._groups) - 1
        self._actors: list[Actor] = []
        self._owners: dict[Any, Actor] = {}  # by the references that are waited for
        self._waiting: list[deque[Job]] = [deque() for _ in self._groups]
        self._failed_starts = 0
        self._any_lost = False
        self._last_placed: list[float] = []
        spec = config.frames
        # A picture of 16:9 at this shorter side, twice for what is on its way; taller ones are rarer.
        frame_bytes = spec.count * spec.size * int(spec.size * 16 / 9) * 3
        self._max_jobs = max(2, int(config.execution.max_in_flight_gib * 2**30 / frame_bytes))

    def run(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """Yield each task when nothing is left to do for it, in order of completion."""
        incoming = iter(tasks)
        exhausted = False
        replanned = time.monotonic()
        self._last_placed = [replanned] * len(self._groups)
        remove_tree(trace_folder(place(self._config.output)))
        # One of each first, those with the largest share of a GPU before the others, so that all find room.
        for index in sorted(range(len(self._groups)), key=lambda i: -self._groups[i].gpus):
            self._start_actor(index)
        for index, group in enumerate(self._groups):
            for _ in range(group.actors - 1):
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
                        self._waiting[0].append(Job(task))
                self._submit()
                if exhausted and not self._in_flight():
                    return
                self._refuse_to_hang()
                over = [*self._collect()]
                if time.monotonic() - replanned > REPLAN_S:
                    replanned = time.monotonic()
                    over += self._follow_cluster()
                for task in over:
                    self._metrics.count(task)
                    yield task
                self._gauge()
        finally:
            for actor in self._actors:
                ray.kill(actor.handle)
            self._actors.clear()
            self._owners.clear()
            remove_tree(trace_folder(place(self._config.output)))
            if self._any_lost:
                remove_unfinished(place(self._config.output))

    def _width(self) -> int:
        return sum(g.batch * g.calls * max(1, g.actors) for g in self._groups)

    def _in_flight(self) -> int:
        return sum(map(len, self._waiting)) + sum(len(actor.jobs()) for actor in self._actors)

    def _gauge(self) -> None:
        for index, group in enumerate(self._groups):
            at = sum(len(actor.jobs()) for actor in self._actors if actor.group == index)
            self._metrics.in_flight(group, at + len(self._waiting[index]))

    def _start_actor(self, group: int) -> None:
        handle: Any = self._classes[group].remote()
        actor = Actor(handle, group)
        self._actors.append(actor)
        self._owners[handle.placed.remote()] = actor

    def _submit(self) -> None:
        """Give waiting jobs to the actors, the last pools first, so that frames leave the store soon."""
        for group in reversed(range(len(self._groups))):
            queue, plan = self._waiting[group], self._groups[group]
            pool = [actor for actor in self._actors if actor.group == group]
            while queue:
                free = [actor for actor in pool if actor.takes(queue[0], plan.calls)]
                if not free:
                    break
                jobs = [queue.popleft()]
                while queue and len(jobs) < plan.batch and not jobs[0].alone and not queue[0].alone:
                    jobs.append(queue.popleft())
                self._call(min(free, key=lambda actor: len(actor.calls)), jobs)

    def _call(self, actor: Actor, jobs: list[Job]) -> None:
        frames = [job.frames for job in jobs] if actor.group else []
        hand_on = actor.group < self._last
        refs = actor.handle.measure.options(num_returns=1 + len(jobs) if hand_on else 1).remote(
            hand_on, [job.task for job in jobs], *frames
        )
        call = Call(jobs, refs if hand_on else [refs])
        if not actor.calls:
            actor.since = time.monotonic()
        actor.calls[call.refs[0]] = call
        self._owners[call.refs[0]] = actor

    def _collect(self) -> Iterator[Task]:
        """Wait for something to happen and yield the tasks that are over."""
        pending = list(self._owners)
        done, _ = ray.wait(pending, num_returns=1, timeout=1.0) if pending else ([], [])
        for ref in done:
            actor = self._owners[ref]
            try:
                result = ray.get(ref)
            except RayActorError as error:
                if error.actor_init_failed:
                    raise Stopped(f"a worker cannot start: {last_line(error)}") from None
                # Unreachable is what a worker is whose node went; that the node is dead shows many seconds later.
                if isinstance(error, ActorUnavailableError) or "node has died" in str(error):
                    yield from self._lost(actor, "its node was lost", blameless=True)
                else:
                    yield from self._lost(actor, "the worker process ended (crashed, killed, or out of memory)")
            except ObjectLostError:  # frames went with the node that held them: decode them again
                del self._owners[ref]
                yield from self._again(actor.calls.pop(ref).jobs, "the node that held its frames was lost")
            except RayError as error:
                if not actor.ready:
                    raise Stopped(f"a worker cannot start: {last_line(error)}") from None
                # its device was lost
                yield from self._lost(actor, last_line(error))
            else:
                del self._owners[ref]
                actor.since = time.monotonic()
                if not actor.placed:
                    actor.placed = True
                    plan = self._groups[actor.group]
                    self._owners[actor.handle.set_up.remote(self._config, self._engines, plan)] = actor
                    continue
                self._failed_starts = 0
                if actor.ready:
                    yield from self._advance(actor, actor.calls.pop(ref), result)
                else:
                    actor.node = result
        yield from self._stop_overdue()
        for actor in [actor for actor in self._actors if actor.leaving and not actor.calls]:
            self._remove(actor)

    def _advance(self, actor: Actor, call: Call, tasks: list[Task]) -> Iterator[Task]:
        frames = call.refs[1:] or [None] * len(tasks)
        for job, task, ref in zip(call.jobs, tasks, frames, strict=True):
            if task.over or actor.group == self._last:
                yield task
            else:
                self._waiting[actor.group + 1].append(dataclasses.replace(job, task=task, frames=ref))

    def _stop_overdue(self) -> Iterator[Task]:
        """Stop workers that take longer than their clips may."""
        for actor in list(self._actors):
            allowed = self._config.execution.clip_deadline_s * len(actor.jobs())
            passed = time.monotonic() - actor.since
            if actor.calls and passed > allowed:
                yield from self._lost(actor, f"did not finish within {allowed:g} s")
            elif actor.placed and not actor.ready and passed > SET_UP_S:
                yield from self._lost(actor, f"its engines were not set up within {SET_UP_S:g} s")

    def _remove(self, actor: Actor) -> None:
        self._actors.remove(actor)
        self._owners = {ref: owner for ref, owner in self._owners.items() if owner is not actor}
        ray.kill(actor.handle)

    def _lost(self, actor: Actor, why: str, blameless: bool = False) -> Iterator[Task]:
        """Replace a lost worker and try its jobs again, each alone unless it was no fault of theirs."""
        self._any_lost = True
        self._remove(actor)
        if not actor.ready and not blameless:
            self._failed_starts += 1
            if self._failed_starts >= 3:
                raise Stopped(f"workers die while starting: {why}")
        if not actor.leaving:
            self._start_actor(actor.group)
        if not blameless:
            for job in actor.jobs():
                job.deaths += job.alone
                job.alone = job.task.traced = True
        yield from self._again(actor.jobs(), why, blameless)

    def _again(self, jobs: list[Job], why: str, blameless: bool = True) -> Iterator[Task]:
        """Put jobs back into the first pool; yield those that have been tried enough."""
        for job in jobs:
            job.frames = None
            job.lost += blameless
            if job.deaths < MAX_DEATHS and job.lost < MAX_TRIES:
                self._waiting[0].append(job)
            else:
                yield given_up(job, why, self._config)

    def _follow_cluster(self) -> Iterator[Task]:
        """Replace actors of nodes that are gone, and bring each pool to the size that suits the nodes that are there:
        of too many actors those go first that wait for a place, the others when they have done what they are at."""
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        for actor in [actor for actor in self._actors if actor.ready and actor.node not in alive]:
            yield from self._lost(actor, "its node was lost", blameless=True)
        try:
            planned = plan_groups(self._config, *cluster_size())
        except Stopped:
            return  # nodes are gone for now; what is running goes on
        if [group.stages for group in planned] != [group.stages for group in self._groups]:
            return  # tasks are between the pools as they are
        for index, group in enumerate(planned):
            pool = [actor for actor in self._actors if actor.group == index and not actor.leaving]
            for _ in range(group.actors - len(pool)):
                self._start_actor(index)
            for actor in sorted(pool, key=lambda actor: actor.ready)[: max(0, len(pool) - group.actors)]:
                actor.leaving = True
            self._groups[index] = dataclasses.replace(self._groups[index], actors=group.actors)

    def _refuse_to_hang(self) -> None:
        """Stop when a pool has had no worker for too long: other work holds the cluster, or no node is large enough."""
        now = time.monotonic()
        placed = {actor.group for actor in self._actors if actor.placed}
        for index, group in enumerate(self._groups):
            if index in placed:
                self._last_placed[index] = now
            waited = now - self._last_placed[index]
            if waited > self._config.execution.start_timeout_s:
                free, size = ray.available_resources(), cluster_size()
                raise Stopped(
                    f"no worker for {group.name} could be started in {waited:.0f} s: one takes {group.cpus:g} CPU and "
                    f"{group.gpus:g} GPU, the cluster has {free.get('CPU', 0):g} of {size.cpus:g} CPUs and "
                    f"{free.get('GPU', 0):g} of {size.gpus:g} GPUs free"
                )
