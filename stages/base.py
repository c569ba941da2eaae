"""The contracts between a stage, its engines and whoever runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from stages.clip import Clip
from stages.frames import Frames, FrameSpec

Needs = Literal["file", "header", "frames", "grid", "columns"]


class ClipError(Exception):
    """This clip cannot be measured; the text says what was wrong with it and is stored with the clip.

    `transient` marks causes that may pass (storage, memory, a lost worker): the next run tries such a clip again.
    """

    def __init__(self, text: str, transient: bool = False) -> None:
        super().__init__(text)
        self.transient = transient


@dataclass(frozen=True)
class Rule:
    """A verdict rule: reject with `reason` when `column` is below (`<`) or above (`>`) the threshold.

    `threshold` is a key of the thresholds or a fixed number. A null column never rejects. `frame` names the column
    with the grid index of the frame that shows it, where one does.
    """

    reason: str
    column: str
    op: Literal["<", ">"]
    threshold: str | float
    frame: str | None = None

    def limit(self, thresholds: Mapping[str, float]) -> float:
        """The number compared with."""
        return thresholds[self.threshold] if isinstance(self.threshold, str) else self.threshold

    def rejects(self, value: float | None, thresholds: Mapping[str, float]) -> bool:
        """Whether a clip with this value of the column is rejected."""
        if value is None:
            return False
        return value < self.limit(thresholds) if self.op == "<" else value > self.limit(thresholds)


@dataclass
class Sample:
    """One clip as an engine sees it.

    `columns` holds what the stages named in `Stage.reads` measured. `frames` is None for stages that need only the
    header or columns.
    """

    clip: Clip
    columns: Mapping[str, Any] = field(default_factory=dict)
    frames: Frames | None = None

    def images(self) -> np.ndarray:
        """Whole frames, uint8 RGB (n, h, w, 3), shorter side = grid size."""
        assert self.frames is not None
        return self.frames.images

    def spread(self, count: int) -> list[int]:
        """Indices of `count` frames spread evenly, the first and the last among them; of one, the middle frame.

        The frames of an image are all the same: its first alone.
        """
        if self.clip.kind == "image":
            return [0]
        last = len(self.images()) - 1
        return sorted({round(i) for i in np.linspace(0, last, count)}) if count > 1 else [(last + 1) // 2]

    def grid(self) -> np.ndarray:
        """The frame grid, uint8 RGB (n, size, size, 3): the frames through the measured crop."""
        assert self.frames is not None
        return self.frames.through(self.columns["crop"])


@dataclass
class Measured:
    """What an engine measured on one clip: a value for each of the stage's columns, and arrays to store beside."""

    columns: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class Params(BaseModel):
    """Parameters of an engine: part of its fingerprint, validated before anything runs.

    operational: names of those that say how the work is done and cannot change its result; not in the fingerprint.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    operational: ClassVar[frozenset[str]] = frozenset()


class Engine(Protocol):
    """One implementation of a stage. It knows nothing of Ray, files or thresholds.

    `Params` is the class of its parameters. The constructor is cheap and imports nothing heavy: models are loaded by
    `setup`. `version` names what the numbers depend on (library versions, model file hashes); changing it re-measures.
    """

    Params: type[Params]

    def __init__(self, params: Any, spec: FrameSpec) -> None: ...

    def version(self) -> str:
        """Library versions and weight hashes; must not import the libraries (use importlib.metadata)."""
        ...

    def setup(self, device: str) -> None:
        """Load the models onto `device` ("cpu", "cuda:0")."""
        ...

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        """One result per sample, in order. A ClipError stands for a sample that cannot be measured."""
        ...


@runtime_checkable
class TwoPhase(Protocol):
    """An engine whose work on the device can be told from the rest: `measure` is `finish(batch, infer(batch))`.

    A worker may finish one batch while the device is at the next.
    """

    def infer(self, batch: Sequence[Sample]) -> Any:
        """What the device computes; one thread at a time calls it."""
        ...

    def finish(self, batch: Sequence[Sample], inferred: Any) -> list[Measured | ClipError]:
        """The results, as `measure` gives them; needs no device, and several threads may call it."""
        ...


@dataclass(frozen=True)
class Stage:
    """One measurement: its columns, what it needs, which stages' columns it reads, its verdict rules, its engines."""

    name: str
    needs: Needs
    fields: tuple[pa.Field, ...]
    engines: Mapping[str, type[Engine]]
    reads: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()

    def for_engine(self, name: str) -> Stage:
        """This stage as the engine needs it: one that declares `needs` or `reads` of its own has them its way."""
        engine = self.engines[name]
        return replace(self, needs=getattr(engine, "needs", self.needs), reads=getattr(engine, "reads", self.reads))
