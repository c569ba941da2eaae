"""What training need not compute again, on disk: frames at training size, the VAE's posteriors, text embeddings.

    CACHE/frames/<2 hex>/<clip_id>-<key>.npy                   decoded frames, for any model
    CACHE/latents/<fingerprint>/<2 hex>/<clip_id>-<key>.npy    mean and deviation of the latents; plain, mirrored
    CACHE/text/<fingerprint>/<2 hex>/<key>.npy                 embedding of one text

A fingerprint is the hash of the frozen model's weights and of how it is run; so what another model made is never read.
What is kept is, bit for bit, what would be computed: it is float32, and frozen models see one clip or text at a time,
whatever the batch. Videos under a random zoom are not kept, no two being alike.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from manifests.shards import whole


@dataclass(frozen=True)
class Cache:
    """The cache of one run. latents, text: fingerprints of VAE and text encoder, None where they are not frozen."""

    folder: Path
    latents: str | None = None
    text: str | None = None

    def path(self, kind: str, *key: Any, clip_id: str = "") -> Path:
        """The file of what `key`, anything that JSON can write, says; kind: its folder. What is of a clip has its id
        in front, so that it can be found again when the clip is to be forgotten."""
        digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()
        name = f"{clip_id}-{digest}" if clip_id else digest
        return self.folder / kind / name[:2] / f"{name}.npy"


def read(path: Path) -> np.ndarray | None:
    """The array kept at `path`, None where there is none, or one that was cut short: it is made anew."""
    try:
        return np.load(path)
    except (FileNotFoundError, EOFError, ValueError):
        return None


def keep(path: Path, array: np.ndarray) -> None:
    """Write it, whole or not at all; processes may do so at once."""
    with whole(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)


def fingerprint(model: nn.Module, *how: str) -> str:
    """Hash of the model's weights and class and of `how` it is run."""
    digest = hashlib.sha256("\n".join([type(model).__name__, torch.__version__, *how]).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]
