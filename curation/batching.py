"""An engine at work on batches: what fits its device, which sample is at fault, and how long it took.

Several threads may call it; the device serves one of them at a time, while the others do what needs none.
"""

from __future__ import annotations

import errno
import logging
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from curation.errors import Stopped
from stages.base import ClipError, Engine, Measured, Sample, TwoPhase

log = logging.getLogger(__name__)

TRANSIENT_ERRNO = frozenset(
    {errno.EIO, errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT}
)
OUT_OF_MEMORY = ("out of memory", "failed to allocate memory", "alloc_failed", "bad_alloc")


@dataclass
class Batched:
    """One result per sample, and seconds: of the engine's work, and of that on a GPU, None where there is none."""

    results: list[Measured | ClipError] = field(default_factory=list)
    seconds: float = 0.0
    gpu_seconds: float | None = None


class Batching:
    """An engine that is set up on a device ("cpu", "cuda:0")."""

    def __init__(self, name: str, engine: Engine, device: str) -> None:
        self._name = name
        self._engine = engine
        self._cuda = device if device.startswith("cuda") else None
        self._lock = threading.Lock()
        self._most: int | None = None  # samples that fit the device together, once more did not

    def measure(self, samples: Sequence[Sample]) -> Batched:
        """Measure the samples, in batches that fit.

        A batch that does not fit is halved, and the size that does is kept for later ones. Of a batch that fails
        otherwise, halves are tried until the one sample at fault stands alone. Raises Stopped where the device itself
        is lost: what follows would fail too, and be no clip's fault.
        """
        batched = Batched(gpu_seconds=None if self._cuda is None else 0.0)
        self._run_all(samples, batched)
        return batched

    def _run_all(self, samples: Sequence[Sample], batched: Batched) -> None:
        done = 0
        while done < len(samples):
            size = min(self._most or len(samples), len(samples) - done)
            self._run(samples[done : done + size], batched)
            done += size

    def _run(self, samples: Sequence[Sample], batched: Batched) -> None:
        try:
            batched.results += self._call(samples, batched)
            return
        except Exception as error:  # noqa: BLE001 (whatever an engine raises is recorded with the one clip that raised it)
            problem = error.with_traceback(None)  # which would hold the tensors of what failed
        memory = is_out_of_memory(problem)
        if "CUDA error" in str(problem) and not memory:
            raise Stopped(f"the GPU was lost in {self._name}: {error_text(problem)}")
        if memory:
            self._shrink(len(samples))
        if len(samples) == 1:
            if not isinstance(problem, ClipError):
                problem = ClipError(error_text(problem), is_transient(problem))
            batched.results.append(problem)
        elif memory:
            self._run_all(samples, batched)
        else:
            half = len(samples) // 2
            self._run(samples[:half], batched)
            self._run(samples[half:], batched)

    def _call(self, samples: Sequence[Sample], batched: Batched) -> list[Measured | ClipError]:
        engine = self._engine
        with self._lock:
            began = time.perf_counter()
            found = engine.infer(samples) if isinstance(engine, TwoPhase) else engine.measure(samples)
            if self._cuda is not None and batched.gpu_seconds is not None:
                import torch

                if torch.cuda.is_initialized():  # else nothing of torch's runs there: faces are onnxruntime's
                    torch.cuda.synchronize(self._cuda)
                batched.gpu_seconds += time.perf_counter() - began
        results = engine.finish(samples, found) if isinstance(engine, TwoPhase) else found
        batched.seconds += time.perf_counter() - began
        return results

    def _shrink(self, failed: int) -> None:
        self._most = max(1, min(failed // 2, self._most or failed))
        log.warning("%s: %d clips did not fit the memory together; %d from now on", self._name, failed, self._most)
        if self._cuda is not None and "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()


def error_text(error: Exception) -> str:
    """What is recorded of an error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def is_transient(error: Exception) -> bool:
    """Whether the next run may fare better."""
    if isinstance(error, OSError):
        return error.errno in TRANSIENT_ERRNO
    return is_out_of_memory(error)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory, of the device or of the machine, was too small."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(phrase in text for phrase in OUT_OF_MEMORY)
