"""Speed of the whole paper profile through the project's own Ray runner, with random weights: see benchmarks/gpu.py."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

WARM_UP = 0.25  # share of the clips that are over before the clock starts
SCREENING = ("cut", "hash", "quality", "text", "face", "embedding")


class Watch:
    """Samples, each second: of GPUs how busy they are (share of time in which a kernel ran, mean over them) and
    the memory taken on all of them; without one, the share of this machine's cores that this process and those below
    it use and their memory, shared memory not counted."""

    def __init__(self, gpus: int) -> None:
        self.samples: list[tuple[float, float, float]] = []  # monotonic seconds, share, GB
        self._gpus = gpus
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        self._look()
        while not self._stop.wait(1.0):
            self.samples.append((time.monotonic(), *(self._look())))

    def _look(self) -> tuple[float, float]:
        if self._gpus:
            command = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
            lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
            rows = [[float(value) for value in line.split(",")] for line in lines if line]
            return sum(row[0] for row in rows) / 100 / len(rows), sum(row[1] for row in rows) * 2**20 / 1e9
        import psutil

        now, spent, memory = time.monotonic(), 0.0, 0
        for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
            try:
                times = process.cpu_times()
                memory += process.memory_full_info().uss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            spent += times.user + times.system
        before, self._before = getattr(self, "_before", (now, spent)), (now, spent)
        share = (spent - before[1]) / max(now - before[0], 1e-9) / len(os.sched_getaffinity(0))
        return max(share, 0.0), memory / 1e9


def run_profile(
    clips: Path, copies: int, workers: int | None, stages: dict[str, Any], frames: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Measure each .mp4 of `clips` `copies` times with the paper profile.

    Random models judge at random, so only clips that are too short, or have not one face, are rejected; they are
    counted, and less work.
    """
    from curation.cluster import cluster_size, connect, shutdown
    from curation.config_file import load
    from curation.fingerprint import describe_engines
    from curation.listing import list_clips
    from curation.placement import describe, plan_groups
    from curation.ray_runner import RayRunner
    from curation.worker import Task

    (folder / "clips").mkdir()
    for video in sorted(clips.glob("*.mp4")):
        for copy in range(copies):
            shutil.copyfile(video, folder / "clips" / f"{video.stem}-{copy}.mp4")
    raw = {
        "output": "out",
        "profile": "paper",
        "sources": [{"name": "bench", "kind": "folder", "root": "clips"}],
        "stages": stages,
        "frames": frames,
        # On a CPU models of full size may take half an hour for a clip.
        "execution": {"clip_deadline_s": 3600, "workers": workers},
        "thresholds": {"min_side": 1, "min_quality": 0, "max_text_area": 1, "min_face_similarity": 0},
    }
    (folder / "sources.yaml").write_text(json.dumps(raw))
    config = load(folder / "sources.yaml")
    connect()
    try:
        size = cluster_size()
        gpus, groups = size.gpus, plan_groups(config, *size)
        tasks = [Task(clip, {}) for clip in list_clips(config, None, Counter())]
        over: list[tuple[float, Task]] = []
        started = time.monotonic()
        with Watch(int(gpus)) as watch:
            for task in RayRunner(config, describe_engines(config)).run(tasks):
                over.append((time.monotonic(), task))
    finally:
        shutdown()
    warm = math.ceil(WARM_UP * len(over))
    begin, end = over[warm - 1][0], over[-1][0]
    timed = [task for when, task in over if when > begin]
    devices = int(gpus) or max(group.actors for group in groups)
    busy = [share for when, share, _ in watch.samples if begin <= when <= end]
    spent: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for task in timed:
        spent.update(task.seconds)
        held.update(task.gpu_seconds)
    failed = Counter(str(row["error"]) for _, task in over for row in task.new.values() if row.get("error"))
    return {
        "plan": describe(groups),
        "devices": devices,
        "clips": len(over),
        "captioned": sum(task.known.get("caption", {}).get("caption") is not None for _, task in over),
        "rejected": sum(task.rejected for _, task in over),
        "failed": dict(failed),
        "seconds_to_warm": round(begin - started, 2),
        "clips_per_s": len(timed) / (end - begin),
        "stage_seconds_per_clip": {name: round(seconds / len(timed), 4) for name, seconds in spent.items()},
        "gpu_seconds_per_clip": {name: round(seconds / len(timed), 4) for name, seconds in held.items()},
        "device_held": sum((held or spent).values()) / (end - begin) / devices,
        "device_busy": sum(busy) / max(len(busy), 1),
        "peak_memory_gb": max(memory for _, _, memory in watch.samples),
        "screening_over_motion": sum((held or spent)[name] for name in SCREENING) / (held or spent)["motion"],
    }


def against_bare(pipeline: dict[str, Any], engines: dict[str, dict[str, float]], peak_tflops: float) -> None:
    """Add what the pipeline keeps of a machine that ran the bare networks alone, one after the other, on each device
    without a pause, and its share of the devices' measured matrix-product peak."""
    bare = sum(1 / figures["bare_clips_per_s"] for figures in engines.values())
    pipeline["bare_clips_per_s"] = pipeline["devices"] / bare
    pipeline["kept_of_bare"] = pipeline["clips_per_s"] / pipeline["bare_clips_per_s"]
    tflop = sum(figures.get("tflop_per_clip", 0.0) for figures in engines.values())
    pipeline["of_matmul_peak"] = tflop * pipeline["clips_per_s"] / (peak_tflops * pipeline["devices"])
