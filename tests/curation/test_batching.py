"""Batches that do not fit, samples at fault, and what two threads share, with an engine that says what it was asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from curation.batching import Batching, is_out_of_memory, is_transient
from curation.errors import Stopped
from stages.base import ClipError, Measured, Params, Sample, TwoPhase
from stages.clip import Clip
from stages.frames import FrameSpec


class Limited:
    """Takes batches of up to `room`; raises on the names in `faults`. Keeps the sizes that it was asked for."""

    Params = Params

    def __init__(self, room: int = 99, faults: dict[str, Exception] | None = None) -> None:
        self.room = room
        self.faults = faults or {}
        self.sizes: list[int] = []

    def version(self) -> str:
        return "1"

    def setup(self, device: str) -> None:
        pass

    def measure(self, batch: Sequence[Sample]) -> list[Measured | ClipError]:
        self.sizes.append(len(batch))
        if len(batch) > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        for sample in batch:
            if sample.clip.path in self.faults:
                raise self.faults[sample.clip.path]
        return [Measured({"name": sample.clip.path}) for sample in batch]


def samples(count: int) -> list[Sample]:
    return [Sample(Clip("s", str(i), "video", "1")) for i in range(count)]


def names(results: Sequence[Measured | ClipError]) -> list[Any]:
    return [r.columns["name"] if isinstance(r, Measured) else str(r) for r in results]


def test_the_size_that_fits_is_remembered() -> None:
    engine = Limited(room=3)
    batching = Batching("motion", engine, "cpu")
    assert names(batching.measure(samples(8)).results) == list("01234567")
    assert engine.sizes == [8, 4, 2, 2, 2, 2]
    engine.sizes.clear()
    assert names(batching.measure(samples(5)).results) == list("01234")
    assert engine.sizes == [2, 2, 1]


def test_a_sample_that_does_not_fit_alone_fails_for_now() -> None:
    engine = Limited(room=0)
    (one, two) = Batching("motion", engine, "cpu").measure(samples(2)).results
    assert isinstance(one, ClipError)
    assert one.transient
    assert str(two) == "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert engine.sizes == [2, 1, 1]


def test_the_sample_at_fault_is_found_by_halving_and_costs_no_later_batch_its_size() -> None:
    engine = Limited(faults={"5": ValueError("no such\nthing")})
    batching = Batching("motion", engine, "cpu")
    results = batching.measure(samples(8)).results
    assert names(results) == [*"01234", "ValueError: no such thing", *"67"]
    assert not results[5].transient  # type: ignore[union-attr]
    assert engine.sizes == [8, 4, 4, 2, 1, 1, 2]
    engine.sizes.clear()
    batching.measure(samples(4))
    assert engine.sizes == [4]


def test_a_lost_gpu_is_no_clips_fault() -> None:
    engine = Limited(faults={"1": RuntimeError("CUDA error: an illegal memory access was encountered")})
    with pytest.raises(Stopped, match=r"the GPU was lost in motion: RuntimeError: CUDA error: an illegal memory"):
        Batching("motion", engine, "cpu").measure(samples(4))
    assert engine.sizes == [4], "nothing that follows could be trusted"


def test_what_counts_as_memory_and_as_passing() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(RuntimeError("bfc_arena.cc: Failed to allocate memory for requested buffer of size 7"))
    assert not is_out_of_memory(ValueError("a bad clip"))
    assert is_transient(OSError(28, "No space left on device"))
    assert not is_transient(OSError(2, "No such file or directory"))


class Slow(Limited):
    """Its first batch does not end before the next one is on the device. Half of its time goes there, half to the
    rest; waiting stands for both."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()
        self.on_device = 0
        self.most_on_device = 0
        self.finishing = 0
        self.finishing_while_on_device = False

    def infer(self, batch: Sequence[Sample]) -> list[str]:
        with self.changed:
            self.on_device += 1
            self.most_on_device = max(self.most_on_device, self.on_device)
            self.finishing_while_on_device |= self.finishing > 0
            self.changed.notify_all()
        time.sleep(0.1)
        with self.changed:
            self.on_device -= 1
        return [sample.clip.path for sample in batch]

    def finish(self, batch: Sequence[Sample], inferred: Sequence[str]) -> list[Measured | ClipError]:
        with self.changed:
            self.finishing += 1
            self.changed.wait_for(lambda: self.finishing_while_on_device, timeout=20)
        time.sleep(0.1)
        with self.changed:
            self.finishing -= 1
        return [Measured({"name": name}) for name in inferred]


def test_one_batch_is_finished_while_the_device_is_at_the_next_and_never_two_are_on_it() -> None:
    engine = Slow()
    assert isinstance(engine, TwoPhase)
    batching = Batching("motion", engine, "cpu")
    found: dict[int, Any] = {}

    def work(first: int) -> None:
        for i in range(first, 6, 2):
            found[i] = batching.measure(samples(i + 1))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: names(batched.results) for i, batched in found.items()} == {
        i: [str(j) for j in range(i + 1)] for i in range(6)
    }
    assert engine.most_on_device == 1
    assert engine.finishing_while_on_device
    assert all(batched.gpu_seconds is None for batched in found.values())
    assert all(batched.seconds >= 0.2 for batched in found.values())


def test_raft_works_in_two_phases() -> None:
    pytest.importorskip("torch")
    from stages.raft_motion import RaftMotion, RaftParams

    engine = RaftMotion(RaftParams(), FrameSpec())
    assert isinstance(engine, TwoPhase)
    still = Sample(Clip("s", "a.png", "image", "1"))
    (measured,) = engine.finish([still], [None])
    assert isinstance(measured, Measured)
    assert measured.columns["motion_intensity"] == 0
    assert not np.any(measured.arrays["magnitude"])
