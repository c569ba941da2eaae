"""The training loop. What is random in a step is a function of (seed, step, rank): resuming needs no random state."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from manifests.shards import whole
from training import checkpoint as checkpoints
from training.arcface import ArcFace, small_arcface, train_small
from training.batch import Batch, collate
from training.components import SCRATCH, build, load_arcface, missing, small_tokenizer
from training.config import FitConfig
from training.data import ClipDataset, DataError, Manifest
from training.draws import BalancedBatches, Draw
from training.framework import Framework
from training.gaps import condition_gaps
from training.pipeline import load_trained
from training.previews import previews

POOL_PIXELS = 2**22  # of a frame, over all held-out clips that the gaps are measured on: 16 clips of 512 x 512
POOL = 32  # clips at most
# Settings that a resumed run may change: they do not touch the weights, or say when to stop.
FREE = frozenset(
    {"steps", "workers", "log_every", "gaps_every", "sample_every", "checkpoint_every", "keep_checkpoints"}
    | {"max_unreadable", "guidance", "sample_steps"}
)


@dataclass
class Skips:
    """Clips that could not be read, by id; `draws` counts all."""

    limit: float
    draws: int = 0
    failed: int = 0
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, batch: Batch, echo: Any) -> None:
        """Count a batch and say each failing clip once. Raises DataError when too many of the draws failed."""
        self.draws += len(batch.clip_id) + len(batch.skipped)
        self.failed += len(batch.skipped)
        for clip_id, reason in batch.skipped:
            if clip_id not in self.reasons:
                self.reasons[clip_id] = reason
                echo(f"skipped {clip_id}: {reason}")
        if self.draws >= 20 and self.failed > self.limit * self.draws:
            raise DataError(
                f"{self.failed} of {self.draws} draws could not be read, more than max_unreadable={self.limit} allows"
            )


def fit(manifest: str, output: Path, config: FitConfig, roots: dict[str, str], cache: Path | None) -> dict[str, Any]:
    """Train, resuming where an earlier run in `output` ended. Returns what is written to `output/fit.json`.

    Raises ValueError for what the user can mend, DataError when too many clips cannot be read.
    """
    if lines := missing(config):
        raise ValueError("model files are missing:\n  " + "\n  ".join(lines))
    accelerator = Accelerator(
        mixed_precision="bf16" if config.precision == "bf16" else "no", gradient_accumulation_steps=config.accumulate
    )
    main, rank, world = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
    output.mkdir(parents=True, exist_ok=True)

    def echo(line: str) -> None:
        if main:
            tqdm.write(line, file=sys.stderr)

    train, held_out = Manifest.read(manifest, "train", roots), Manifest.read(manifest, "val", roots)
    if not train.rows:
        raise ValueError(f"{manifest}: no clip of split train")
    if len(held_out.rows) < 2:
        echo("no two clips are held out (split val): loss gaps are measured on the clips trained on")
        held_out = train
    framework = prepare(train, held_out, output, config, cache, accelerator)
    parameters = framework.trainable()
    optimizer = torch.optim.AdamW(parameters.values(), lr=config.lr, weight_decay=config.weight_decay)
    ema = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    start = resume(output, framework, optimizer, ema, config, train, echo)
    dataset = ClipDataset(train, config, cache)
    batches = BalancedBatches(train.weights, config.batch, config.seed, rank, world, start * config.accumulate)
    loader = iter(
        DataLoader(
            dataset,
            batch_sampler=batches,  # endless, and of Draws
            collate_fn=collate,
            num_workers=config.workers,
            pin_memory=accelerator.device.type == "cuda",
        )
    )
    model, optimizer = accelerator.prepare(framework.train(), optimizer)
    ema = {name: tensor.to(accelerator.device) for name, tensor in ema.items()}
    writer = SummaryWriter(str(output / "tensorboard"), purge_step=start) if main else None
    pool = Pool.of(held_out, config, cache) if main else None
    skips = Skips(config.max_unreadable)
    gaps: dict[str, float] = {}
    losses: dict[str, Tensor] = {}

    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, desc="fit", disable=not main)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, (step + 1) / max(1, config.warmup))
        for micro in range(step * config.accumulate, (step + 1) * config.accumulate):
            batch = next(loader)
            skips.add(batch, echo)
            noise = framework.noise(batch, generator(config.seed, micro, rank))
            with accelerator.accumulate(model):
                step_losses = model(batch.to(accelerator.device), noise)  # L_R, L_id, L: Eq. 9, 10, 4, 11
                accelerator.backward(step_losses.total)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(parameters.values(), config.clip_norm)
                optimizer.step()
                optimizer.zero_grad()
        update_ema(ema, parameters, min(config.ema, (step + 1) / (step + 10)))
        done = step + 1

        losses = {name: value.detach() for name, value in vars(step_losses).items()}
        if not torch.isfinite(losses["total"]):
            raise ValueError(f"the loss is {losses['total'].item()} at step {done}: lower lr or warm up longer")
        if writer and (done % config.log_every == 0 or done == config.steps):
            bar.set_postfix(loss=f"{losses['total'].item():.4f}")
            for name, value in losses.items():
                writer.add_scalar(f"loss/{name}", value.item(), done)
            writer.add_scalar("data/unreadable", skips.failed, done)
        if writer and pool and (done % config.gaps_every == 0 or done == config.steps):
            gaps = condition_gaps(framework, pool.batch, pool.identities, config.seed, max(2, config.batch))
            echo(f"step {done}: loss gaps " + ", ".join(f"{name} {gap:.3f}" for name, gap in gaps.items()))
            for name, gap in gaps.items():
                writer.add_scalar(f"gap/{name}", gap, done)
        if writer and pool and (done % config.sample_every == 0 or done == config.steps):
            picture = previews(framework, pool.batch, config)
            writer.add_image("samples", np.moveaxis(picture, 2, 0), done)
        if main and (done % config.checkpoint_every == 0 or done == config.steps):
            save(output, done, framework, optimizer, ema, config, train)
        accelerator.wait_for_everyone()
    if writer:
        writer.close()
    result = {
        "step": config.steps,
        "loss": {name: value.item() for name, value in losses.items()},
        "gaps": gaps,
        "skipped": skips.reasons,
        "held_out": held_out is not train,
    }
    if main and losses:
        with whole(output / "fit.json") as temporary:
            temporary.write_text(json.dumps(result, indent=1))
    return result


def generator(seed: int, micro: int, rank: int) -> torch.Generator:
    """The random numbers of one pass of one rank."""
    state = np.random.SeedSequence([seed, micro, rank]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


@torch.no_grad()
def update_ema(ema: dict[str, Tensor], parameters: dict[str, Any], decay: float) -> None:
    """ema = decay ema + (1 - decay) parameter; the decay starts low, so that early averages forget the start."""
    for name, parameter in parameters.items():
        ema[name].lerp_(parameter.detach(), 1 - decay)


def prepare(
    train: Manifest, held_out: Manifest, output: Path, config: FitConfig, cache: Path | None, accelerator: Accelerator
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


def trained_arcface(manifest: Manifest, path: Path, config: FitConfig, cache: Path | None) -> ArcFace:
    """The small ArcFace of this run: from `path`, or trained now on the manifest's identities and written there."""
    from safetensors.torch import load_file, save_file

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
            yield batch.reference, batch.reference_warp, torch.tensor([labels[i] for i in batch.clip_id])

    arcface = train_small(batches(), len(numbers), config.arcface_steps, config.seed)
    with whole(path) as temporary:
        save_file(arcface.network.state_dict(), temporary)
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
    def of(cls, manifest: Manifest, config: FitConfig, cache: Path | None) -> Pool:
        """Up to POOL clips, evenly spaced over the manifest."""
        count = min(POOL, max(2, POOL_PIXELS // config.size**2))
        rows = np.unique(np.linspace(0, len(manifest.rows) - 1, count).round().astype(int)).tolist()
        dataset = ClipDataset(manifest, config.model_copy(update={"flip": 0.0, "zoom": 1.0}), cache)
        who = {row["clip_id"]: identity_of(row) for row in manifest.rows}
        batch = collate([dataset[Draw(row, row)] for row in rows])
        return cls(batch, [who[clip_id] for clip_id in batch.clip_id])


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
    now = config.model_dump(mode="json")
    changed = [name for name in now if name not in FREE and now[name] != written["config"][name]]
    if changed:
        name = changed[0]
        was = written["config"][name]
        raise ValueError(f"{found.folder}: was trained with {name}={was}, not {now[name]}; choose another --output")
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
