"""Checkpoints: whole or not at all, checked by hash, the newest good one is found again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

SUMS = "SHA256SUMS"


class DamagedCheckpoint(ValueError):
    """A file of the checkpoint is missing or is not what was written."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder `step-00000500` with weights.safetensors, ema.safetensors, config.json, optimizer.pt, SHA256SUMS.

    Weights alone are in it, of what is trained; optimizer.pt serves to resume and may be deleted afterwards.
    """

    folder: Path

    @property
    def step(self) -> int:
        """Steps that were taken before it was written."""
        return int(self.folder.name.removeprefix("step-"))

    def verify(self) -> None:
        """Raise DamagedCheckpoint when a file is not what was written; a deleted optimizer.pt is not damage."""
        sums = self.folder / SUMS
        if not sums.is_file():
            raise DamagedCheckpoint(f"{self.folder}: not a checkpoint, it has no {SUMS}")
        for line in sums.read_text().splitlines():
            expected, _, name = line.partition("  ")
            path = self.folder / name
            if not path.is_file():
                if name == "optimizer.pt":
                    continue
                raise DamagedCheckpoint(f"{path}: is missing")
            if digest(path) != expected:
                raise DamagedCheckpoint(f"{path}: is damaged, its hash is not the one in {SUMS}")

    def digest(self) -> str:
        """Hash of all that was written."""
        return digest(self.folder / SUMS)

    def config(self) -> dict[str, Any]:
        """What was written as `config`."""
        return json.loads((self.folder / "config.json").read_text())

    def weights(self, ema: bool = False) -> dict[str, Tensor]:
        """Trained tensors by name."""
        from safetensors.torch import load_file

        return load_file(self.folder / ("ema.safetensors" if ema else "weights.safetensors"))

    def extra(self) -> dict[str, Tensor]:
        """Small frozen tensors that were trained on the spot (ArcFace)."""
        from safetensors.torch import load_file

        path = self.folder / "arcface.safetensors"
        return load_file(path) if path.exists() else {}

    def optimizer(self) -> dict[str, Any]:
        """State of the optimiser."""
        import torch

        return torch.load(self.folder / "optimizer.pt", map_location="cpu", weights_only=True)


def save(
    folder: Path,
    step: int,
    config: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    optimizer: Mapping[str, Any],
    texts: Mapping[str, str],
    keep: int,
) -> Checkpoint:
    """Write `folder/step-<step>` and then delete the oldest beyond `keep`.

    tensors: {"weights": ..., "ema": ..., "arcface": ...}, a safetensors file each. texts: further files. Everything is
    written beside its place and renamed at the end: a full disk or a kill loses nothing that was there before.

    Raises OSError in one line when it cannot be written.
    """
    import torch

    for left in folder.glob(".step-*.tmp"):  # by a run that was killed here
        shutil.rmtree(left)
    place = folder / f"step-{step:08d}"
    temporary = folder / f".{place.name}.{uuid.uuid4().hex}.tmp"
    temporary.mkdir(parents=True)
    try:
        for name, state in tensors.items():
            write_tensors(temporary / f"{name}.safetensors", state)
        with (temporary / "optimizer.pt").open("wb") as file:
            torch.save(optimizer, file)
        (temporary / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True))
        for name, text in texts.items():
            (temporary / name).write_text(text)
        files = sorted(path.name for path in temporary.iterdir())
        (temporary / SUMS).write_text("".join(f"{digest(temporary / name)}  {name}\n" for name in files))
        for path in temporary.iterdir():
            _sync(path)
        if place.exists():  # damaged, or from a run that was killed after this very step
            shutil.rmtree(place)
        temporary.rename(place)
        _sync(folder)
    except (OSError, RuntimeError) as error:  # torch.save turns the system's error into one of its own
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise OSError(f"{place}: cannot be written: {cause}; what was written before is whole") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in _all(folder)[:-keep]:
        shutil.rmtree(old.folder)
    return Checkpoint(place)


def write_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """A safetensors file. Raises OSError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, path)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a line about each newer one that is not."""
    refused = []
    for checkpoint in reversed(_all(folder)):
        try:
            checkpoint.verify()
        except DamagedCheckpoint as damage:
            refused.append(str(damage))
        else:
            return checkpoint, refused
    return None, refused


def _all(folder: Path) -> list[Checkpoint]:
    return [Checkpoint(path) for path in sorted(folder.glob("step-*"))]


def digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
