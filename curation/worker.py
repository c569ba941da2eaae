"""Measures clips: the stages of one actor, over the frames that they share.

Knows nothing of Ray: the in-process runner and the Ray actors run this same code. A clip is decoded once, when the
first stage that needs frames is reached; a clip that a rule rejects costs nothing more.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation.batching import Batching, error_text
from curation.config import Config
from curation.errors import Stopped
from curation.fingerprint import build_engine
from curation.weights import ensure
from manifests.shards import whole
from manifests.storage import Place, place
from stages import weights
from stages.base import ClipError, Sample, Stage
from stages.clip import Clip
from stages.decode import Decoder
from stages.frames import Frames
from stages.header import decode_columns, header_columns, header_of

DECODERS = ("header", "decode", "shots")  # stages that the Decoder measures


@dataclass
class Task:
    """One clip on its way through the stages.

    known: per stage, the columns that were measured, now or by an earlier run.
    new: per stage, the row to store: columns, or error and transient.
    over: no later stage needs to look at the clip: it was rejected, it failed, or all is known.
    rejected: by a rule, under the thresholds of this run.
    seconds: per stage, time spent on this clip; gpu_seconds: of it, how long a GPU was held, where there is one.
    traced: leave on disk which stage was reached (`read_trace`), for a clip that has lost a worker before.
    """

    clip: Clip
    known: dict[str, dict[str, Any]]
    new: dict[str, dict[str, Any]] = field(default_factory=dict)
    over: bool = False
    rejected: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    gpu_seconds: dict[str, float] = field(default_factory=dict)
    traced: bool = False


class Worker:
    """Runs some of the configured stages, in order, on tasks and their frames."""

    def __init__(
        self,
        config: Config,
        engines: Mapping[str, Mapping[str, Any]],
        stages: Sequence[str] | None = None,
        device: str = "cpu",
    ) -> None:
        """`engines` as `describe_engines` gives them; `stages`: names of those that run here, all by default."""
        self._config = config
        self._output = place(config.output)
        self._roots = {source.name: source.root for source in config.sources}
        self._table = [stage for stage, _ in config.stage_table()]
        self._mine = {stage.name for stage in self._table if stages is None or stage.name in stages}
        self._flow_folder = Path("flows") / engines.get("motion", {}).get("fingerprint", "")
        self._decoder = Decoder(config.execution.deadline_s)
        self._decoding = threading.Lock()
        self._cache = config.storage.opened()
        self._params = {chosen.stage: chosen.params for chosen in config.stages}
        self._engines: dict[str, Batching] = {}
        for stage, chosen in config.stage_table():
            if stage.name in self._mine and stage.name not in DECODERS:
                engine = build_engine(stage, chosen, config)
                try:
                    ensure(weights.needed([engine]))  # of another machine than the driver's
                    engine.setup(device)
                except Exception as error:
                    raise Stopped(f"the engine of {stage.name} cannot be set up: {error_text(error)}") from error
                self._engines[stage.name] = Batching(stage.name, engine, device)

    def close(self) -> None:
        """End the decoder's process."""
        self._decoder.close()

    def measure(
        self, tasks: Sequence[Task], frames: Sequence[Frames | None] | None = None
    ) -> tuple[list[Task], list[Frames | None]]:
        """Run this worker's stages on the tasks; returns them with what was measured, and their frames.

        `frames` are those that an earlier worker decoded. Frames are only returned for tasks that are not over. Several
        threads may call it: one does on a CPU what the next needs no GPU for.
        """
        tasks = [_copy(task) for task in tasks]
        held: dict[int, Frames | None] = dict(enumerate(frames or [None] * len(tasks)))
        for position, stage in enumerate(self._table):
            if stage.name not in self._mine:
                continue
            todo = [i for i, task in enumerate(tasks) if not task.over and stage.name not in task.known]
            for i in todo:
                if tasks[i].traced:
                    self._trace(tasks[i], stage.name)
            if stage.needs in ("frames", "grid"):
                todo = [i for i in todo if self._decode(tasks[i], held, i, stage)]
            if stage.name not in DECODERS:
                self._run_engine(stage, [(tasks[i], held[i]) for i in todo])
            elif stage.name == "header":
                for i in todo:
                    self._header(tasks[i])
            elif stage.name == "shots":
                for i in todo:
                    self._shots(tasks[i])
            for task in tasks:
                self._judge(task, stage, position)
            for i, task in enumerate(tasks):
                if task.over:
                    held[i] = None
        # Workers further on may need frames of a clip whose decoding was measured by an earlier run.
        for i, task in enumerate(tasks):
            ahead = [s for s in self._table if s.name not in self._mine and s.name not in task.known]
            if not task.over and "decode" in self._mine and any(s.needs in ("frames", "grid") for s in ahead):
                self._decode(task, held, i, ahead[0])
        return tasks, [held[i] if not task.over else None for i, task in enumerate(tasks)]

    def _trace(self, task: Task, stage: str) -> None:
        with whole(trace_folder(self._output) / task.clip.clip_id) as temporary:
            temporary.write_text(json.dumps({"stage": stage, "new": task.new}))

    def _header(self, task: Task) -> None:
        started = time.perf_counter()
        try:
            with self._file(task.clip) as path, self._decoding:
                header = self._decoder.header(path, task.clip.kind, task.clip.folder_fps)
            self._store(task, "header", header_columns(header, self._config.frames, task.clip.span, task.clip.box))
        except ClipError as error:
            _fail(task, "header", error)
        task.seconds["header"] = time.perf_counter() - started

    def _shots(self, task: Task) -> None:
        started = time.perf_counter()
        clip, params = task.clip, self._params["shots"]
        try:
            columns: dict[str, Any] = {}
            if clip.kind == "video":
                threshold = params["threshold"] if params["detect"] else None
                with self._file(clip) as path, self._decoding:
                    columns = self._decoder.shots(path, clip.span, threshold, clip.folder_fps)
            self._store(task, "shots", columns)
        except ClipError as error:
            _fail(task, "shots", error)
        task.seconds["shots"] = time.perf_counter() - started

    def _decode(self, task: Task, held: dict[int, Frames | None], index: int, stage: Stage) -> bool:
        """Whether the task's frames are at hand; decodes them if they are not yet."""
        if held[index] is not None:
            return True
        if task.over:
            return False
        started = time.perf_counter()
        clip = task.clip
        try:
            header = header_of(clip, task.known["header"])
            with self._file(clip) as path, self._decoding:
                frames = self._decoder.frames(path, clip.kind, self._config.frames, header, clip.span, clip.box)
            held[index] = frames
            if "decode" not in task.known:
                self._store(task, "decode", decode_columns(frames, self._config.frames, header))
        except ClipError as error:
            _fail(task, "decode" if "decode" not in task.known else stage.name, error)
        task.seconds["decode"] = time.perf_counter() - started
        return held[index] is not None

    def _run_engine(self, stage: Stage, work: Sequence[tuple[Task, Frames | None]]) -> None:
        if not work:
            return
        samples = [
            Sample(task.clip, {k: v for name in stage.reads for k, v in task.known[name].items()}, frames)
            for task, frames in work
        ]
        batched = self._engines[stage.name].measure(samples)
        for (task, _), result in zip(work, batched.results, strict=True):
            task.seconds[stage.name] = batched.seconds / len(work)
            if batched.gpu_seconds is not None:
                task.gpu_seconds[stage.name] = batched.gpu_seconds / len(work)
            try:
                if isinstance(result, ClipError):
                    raise result
                if result.arrays:
                    result.columns["flow_path"] = self._save(task.clip, result.arrays)
                self._store(task, stage.name, result.columns)
            except ClipError as error:
                _fail(task, stage.name, error)

    def _judge(self, task: Task, stage: Stage, position: int) -> None:
        """Mark the task over when this stage's rules reject it, or when nothing is left to measure after it."""
        columns = task.known.get(stage.name)
        if columns is None or task.over:
            return
        thresholds = self._config.thresholds
        task.rejected = any(rule.rejects(columns[rule.column], thresholds) for rule in stage.rules)
        task.over = task.rejected or all(later.name in task.known for later in self._table[position + 1 :])

    def _store(self, task: Task, name: str, columns: dict[str, Any]) -> None:
        """Take columns as measured, in the types that they are stored in, so that verdicts now and later agree."""
        stage = next(stage for stage in self._table if stage.name == name)
        row: dict[str, Any] = {}
        for column in stage.fields:
            try:
                value = pa.scalar(columns.get(column.name), column.type).as_py()
            except (pa.ArrowException, OverflowError) as error:
                raise ClipError(f"{name} measured a {column.name} that is no {column.type}: {error}") from error
            if isinstance(value, float) and not math.isfinite(value):
                raise ClipError(f"{name} measured {column.name} = {value}, which is not a number to judge by")
            row[column.name] = value
        task.known[name] = row
        task.new[name] = {"clip_id": task.clip.clip_id, "stamp": task.clip.stamp, **row}

    def _save(self, clip: Clip, arrays: dict[str, np.ndarray]) -> str:
        """Write the arrays of a clip beside the manifests and return their path relative to the output folder.

        The name follows the content: a measurement that is used again finds the flow that it was stored with.
        """
        digest = hashlib.blake2b(digest_size=4)
        for name in sorted(arrays):
            digest.update(arrays[name].tobytes())
        path = self._flow_folder / clip.clip_id[:2] / f"{clip.clip_id}-{digest.hexdigest()}.npz"
        try:
            with whole(self._output / path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        except OSError as error:
            raise ClipError(f"{path}: cannot be written: {error.strerror}", transient=True) from error
        return path.as_posix()

    def _file(self, clip: Clip) -> AbstractContextManager[str]:
        """Where the clip's file can be opened on this machine."""
        return self._cache.clip(clip, self._roots[clip.source])


def _copy(task: Task) -> Task:
    return dataclasses.replace(
        task,
        known=dict(task.known),
        new=dict(task.new),
        seconds=dict(task.seconds),
        gpu_seconds=dict(task.gpu_seconds),
    )


def _fail(task: Task, stage: str, error: ClipError) -> None:
    task.new[stage] = failed_row(task.clip, str(error), error.transient)
    task.over = True


def trace_folder(output: Place) -> Place:
    """Where traced tasks leave how far they came; emptied by each run."""
    return output / "measurements" / ".trace"


def read_trace(output: Place, clip: Clip) -> tuple[str | None, dict[str, dict[str, Any]]]:
    """The stage at which a traced task's worker was lost, and the rows measured before it; removes the trace."""
    path = trace_folder(output) / clip.clip_id
    if not path.exists():
        return None, {}
    trace = json.loads(path.read_text())
    path.unlink()
    return trace["stage"], trace["new"]


def failed_row(clip: Clip, text: str, transient: bool) -> dict[str, Any]:
    """The row to store for a stage at which the clip failed."""
    return {"clip_id": clip.clip_id, "stamp": clip.stamp, "error": text, "transient": transient}
