"""What a run needs before its first step: the framework, the small ArcFace, the held-out samples it is measured on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from manifests.shards import whole
from training.arcface import ArcFace, small_arcface, train_small
from training.batch import Batch, collate
from training.cache import Cache
from training.checkpoint import write_tensors
from training.components import SCRATCH, build, load_arcface
from training.config import FitConfig
from training.data import ClipDataset, Manifest
from training.draws import BalancedBatches, Draw
from training.framework import Framework
from training.small import small_tokenizer

POOL_PIXELS = 2**22  # of a frame, over all held-out clips that the gaps are measured on: 16 clips of 512 x 512
POOL = 32  # clips at most


def prepare(
    train: Manifest, output: Path, config: FitConfig, cache: Cache | None, accelerator: Accelerator
) -> Framework:
    """The framework before step 0; trains the small ArcFace where the config says so."""
    tokenizer = None
    if config.base == SCRATCH:
        rows = train.rows
        tokenizer = small_tokenizer(text or "" for row in rows for text in (row["caption"], row["action"]))
    if config.arcface == "train":
        with accelerator.main_process_first():
            arcface = trained_arcface(train, output / "arcface.safetensors", config, cache)
    else:
        arcface = load_arcface(config)
    return Framework(build(config, arcface, train.spec.count, tokenizer), config)


def trained_arcface(manifest: Manifest, path: Path, config: FitConfig, cache: Cache | None) -> ArcFace:
    """The small ArcFace of this run: from `path`, or trained now on the manifest's identities and written there."""
    from safetensors.torch import load_file

    if path.exists():
        arcface = small_arcface()
        arcface.network.load_state_dict(load_file(path))
        return arcface
    who = [identity_of(row) for row in manifest.rows]
    numbers = {name: i for i, name in enumerate(sorted(set(who)))}
    dataset = ClipDataset(manifest, config.model_copy(update={"identity_frames": 1}), cache)

    labels = {row["clip_id"]: numbers[name] for row, name in zip(manifest.rows, who, strict=True)}

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for draws in BalancedBatches(np.ones(len(who)), batch=16, seed=config.seed):
            samples = [dataset[draw] for draw in draws]
            batch = collate(samples)
            bar.update()
            yield batch.reference, batch.reference_warp, torch.tensor([labels[i] for i in batch.clip_id])

    tqdm.write(f"no ArcFace is loaded (arcface=train): a small one learns {len(numbers)} identities", file=sys.stderr)
    with tqdm(total=config.arcface_steps, desc="arcface") as bar:
        arcface = train_small(batches(), len(numbers), config.arcface_steps, config.seed)
    with whole(path) as temporary:
        write_tensors(temporary, arcface.network.state_dict())
    return arcface


def identity_of(row: dict[str, Any]) -> str:
    """Who is in the clip: the manifest's cluster, or where it has none the source file."""
    return row["identity"] or f"{row['source']}/{row['path']}"


@dataclass
class Pool:
    """Held-out samples that the loss gaps and the preview are made from, without augmentation."""

    batch: Batch
    identities: list[str]

    @classmethod
    def of(cls, manifest: Manifest, config: FitConfig, cache: Cache | None) -> Pool:
        """Up to POOL clips, evenly spaced over the manifest."""
        count = min(POOL, max(2, POOL_PIXELS // config.size**2))
        rows = np.unique(np.linspace(0, len(manifest.rows) - 1, count).round().astype(int)).tolist()
        dataset = ClipDataset(manifest, config.model_copy(update={"flip": 0.0, "zoom": 1.0}), cache)
        who = {row["clip_id"]: identity_of(row) for row in manifest.rows}
        batch = collate([dataset[Draw(row, row)] for row in rows])
        return cls(batch, [who[clip_id] for clip_id in batch.clip_id])
