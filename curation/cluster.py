"""The Ray cluster as a run sees it: joining it, its size, and the metrics that it collects of the run."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.metrics import Counter, Gauge
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tqdm import tqdm

from curation.errors import Stopped
from curation.placement import DEFAULT_GPU_GIB, ClusterSize, Group, gpu_memories
from curation.worker import Task


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names or `ray start` left on record here, or start an embedded one.

    Ray itself waits for minutes where nobody answers. A cluster that has died leaves its record behind, and is passed
    over with a line; one that RAY_ADDRESS names is not.

    Raises:
        Stopped: Ray cannot be reached or started, with the reason.
    """
    if ray.is_initialized():
        return
    named, address = os.environ.get("RAY_ADDRESS"), None
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR", f"{os.sep}tmp")  # as Ray does
    record = Path(folder, "ray", "ray_current_cluster")
    if named and not _answers(named):
        raise Stopped(f"no Ray cluster answers at RAY_ADDRESS={named}: start it, or unset RAY_ADDRESS")
    if not named and record.is_file() and not _answers(found := record.read_text(encoding="utf-8").strip()):
        told = f"no Ray cluster answers at {found}, as {record} says: this run starts its own"
        tqdm.write(told, file=sys.stderr)  # the progress is on show
        address = "local"
    try:
        ray.init(address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises bare Exceptions here
        raise Stopped(f"Ray cannot be reached or started: {last_line(error)}") from error


def _answers(address: str) -> bool:
    """Whether somebody listens at a HOST:PORT; of other addresses (auto, local, ray://...) Ray says itself."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or "/" in host:
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, UnicodeError):  # UnicodeError: no name that a host can have
        return False
    return True


def shutdown() -> None:
    """Leave the cluster, and end it if `connect` started it; otherwise that happens when the process ends."""
    with contextlib.suppress(RayError):
        ray.shutdown()


def cluster_size() -> ClusterSize:
    """What the cluster that this process is connected to has."""
    resources = ray.cluster_resources()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    gib = min((_smallest_gpu(n["NodeID"]) for n in nodes if n["Resources"].get("GPU")), default=DEFAULT_GPU_GIB)
    # Ray parts what is free at its start between the two.
    memories = [
        (n["Resources"].get("memory", 0) + n["Resources"].get("object_store_memory", 0)) / 2**30
        for n in nodes
        if n["Resources"].get("CPU")
    ]
    return ClusterSize(resources.get("CPU", 0.0), resources.get("GPU", 0.0), gib, memories)


@lru_cache(maxsize=10_000)
def _smallest_gpu(node: str) -> float:
    """GiB of the smallest GPU of a node; the default where the node does not say, as with logical GPUs."""
    if node == ray.get_runtime_context().get_node_id():
        found = gpu_memories()
    else:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        ask = ray.remote(gpu_memories).options(num_cpus=0, scheduling_strategy=there)
        try:
            found = ray.get(ask.remote(), timeout=60)
        except RayError:  # a node that is going, or too busy to answer
            found = []
    return min(found, default=DEFAULT_GPU_GIB)


def fits(group: Group, resources: Mapping[str, float]) -> bool:
    """Whether a node of these resources can hold one actor of the group."""
    return group.cpus <= resources.get("CPU", 0) and group.gpus <= resources.get("GPU", 0)


class Metrics:
    """What Ray's metrics (`ray metrics launch-prometheus`, the dashboard) show of a run while it runs."""

    def __init__(self) -> None:
        stage, group = ("stage",), ("group",)
        self._measured = Counter("human_motion_clips_measured", "Clips that a stage has measured.", stage)
        self._failed = Counter("human_motion_clips_failed", "Clips that failed at a stage.", stage)
        self._seconds = Counter("human_motion_stage_seconds", "Seconds that a stage has taken.", stage)
        self._gpu_seconds = Counter("human_motion_stage_gpu_seconds", "Seconds that a stage has held a GPU.", stage)
        self._in_flight = Gauge("human_motion_clips_in_flight", "Clips that wait for, or are in, a group.", group)

    def count(self, task: Task) -> None:
        """Add a task for which nothing is left to do."""
        for stage, row in task.new.items():
            (self._failed if row.get("error") else self._measured).inc(1, {"stage": stage})
        for counter, seconds in ((self._seconds, task.seconds), (self._gpu_seconds, task.gpu_seconds)):
            for stage, value in seconds.items():
                if value > 0:
                    counter.inc(value, {"stage": stage})

    def in_flight(self, group: Group, clips: int) -> None:
        """How many clips are at a group now."""
        self._in_flight.set(clips, {"group": group.name})


def last_line(error: BaseException) -> str:
    """What went wrong, without Ray's traceback."""
    lines = str(error).strip().splitlines()
    return lines[-1][:300] if lines else type(error).__name__
