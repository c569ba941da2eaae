"""A training run on disk: saved as a checkpoint, and resumed from the newest whole one."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training import checkpoint as checkpoints
from training.components import SCRATCH
from training.config import FitConfig
from training.data import Manifest
from training.framework import Framework
from training.pipeline import fit_config_of, load_trained

# Settings that a resumed run may change: they do not touch the weights, or say when to stop.
FREE = frozenset(
    {"steps", "workers", "log_every", "gaps_every", "sample_every", "checkpoint_every", "keep_checkpoints"}
    | {"max_unreadable", "guidance", "sample_steps"}
)


def resume(
    output: Path,
    framework: Framework,
    optimizer: torch.optim.Optimizer,
    ema: dict[str, Tensor],
    config: FitConfig,
    manifest: Manifest,
    echo: Any,
) -> int:
    """Load the newest whole checkpoint in place and return its step; 0 where there is none.

    Raises ValueError when it was written under another config or another dataset.
    """
    found, refused = checkpoints.newest(output / "checkpoints")
    for line in refused:
        echo(f"refused: {line}")
    if found is None:
        return 0
    written = found.config()
    now, was = (of.model_dump(mode="json") for of in (config, fit_config_of(found)))
    free = FREE if config.lr_decay == "none" else FREE - {"steps"}  # the learning rate falls towards the last step
    for name in now:
        if name not in free and now[name] != was[name]:
            raise ValueError(
                f"{found.folder}: was trained with {name}={was[name]}, not {now[name]}; choose another --output"
            )
    if written["dataset"] != manifest.fingerprint:
        raise ValueError(f"{found.folder}: was trained on another manifest; choose another --output")
    if not (found.folder / "optimizer.pt").exists():
        raise ValueError(f"{found.folder}: its optimizer.pt was deleted, so it can be sampled from but not resumed")
    load_trained(framework, found.weights())
    for name, tensor in found.weights(ema=True).items():
        ema[name].copy_(tensor)
    optimizer.load_state_dict(found.optimizer())
    echo(f"resuming from {found.folder}")
    return found.step


def save(
    output: Path,
    step: int,
    framework: Framework,
    optimizer: Any,
    ema: dict[str, Tensor],
    config: FitConfig,
    manifest: Manifest,
) -> None:
    """Write a checkpoint that training and sampling can start from."""
    tensors: dict[str, Any] = {"weights": framework.trainable(), "ema": ema}
    if config.arcface == "train":
        tensors["arcface"] = framework.arcface.network.state_dict()
    texts = {}
    if config.base == SCRATCH:
        texts["tokenizer.json"] = framework.tokenizer.backend_tokenizer.to_str()
    about = {
        "config": config.model_dump(mode="json"),
        "step": step,
        "dataset": manifest.fingerprint,
        "frames": manifest.spec.model_dump(mode="json"),
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
    }
    state = optimizer.state_dict()
    checkpoints.save(output / "checkpoints", step, about, tensors, state, texts, config.keep_checkpoints)
