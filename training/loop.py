"""The training loop. What is random in a step is a function of (seed, step, rank): resuming needs no random state."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from manifests.shards import whole
from training.batch import collate
from training.cache import Cache
from training.components import missing
from training.config import FitConfig
from training.data import ClipDataset, Manifest
from training.draws import BalancedBatches
from training.gaps import condition_gaps
from training.prepare import Pool, prepare
from training.previews import add_video, previews
from training.state import resume, save
from training.tally import Running, Skips


def fit(manifest: str, output: Path, config: FitConfig, roots: dict[str, str], folder: Path | None) -> dict[str, Any]:
    """Train, resuming where an earlier run in `output` ended. Returns what is written to `output/fit.json`.

    folder: of the cache, None for none.
    Raises ValueError for what the user can mend, DataError when too many clips cannot be read.
    """
    if lines := missing(config):
        raise ValueError("model files are missing:\n  " + "\n  ".join(lines))
    accelerator = Accelerator(
        mixed_precision="bf16" if config.precision == "bf16" else "no", gradient_accumulation_steps=config.accumulate
    )
    main, rank, world = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
    output.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        tqdm.write(line, file=sys.stderr)

    def echo(line: str) -> None:
        if main:
            say(line)

    train, held_out = Manifest.read(manifest, "train", roots), Manifest.read(manifest, "val", roots)
    if not train.rows:
        raise ValueError(f"{manifest}: no clip of split train")
    if len(held_out.rows) < 2:
        echo("no two clips are held out (split val): loss gaps are measured on the clips trained on")
        held_out = train
    cache = None if folder is None else Cache(folder)
    framework = prepare(train, output, config, cache, accelerator)
    parameters = framework.trainable()
    optimizer = torch.optim.AdamW(parameters.values(), lr=config.lr, weight_decay=config.weight_decay)
    ema = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    start = resume(output, framework, optimizer, ema, config, train, echo)
    framework.to(accelerator.device)
    if cache is not None:
        cache = framework.use(cache)
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
    losses: dict[str, float] = {}
    running = Running()

    bar = tqdm(range(start, config.steps), initial=start, total=config.steps, desc="fit", disable=not main)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        for micro in range(step * config.accumulate, (step + 1) * config.accumulate):
            batch = next(loader)
            skips.add(batch, say)
            noise = framework.noise(batch, generator(config.seed, micro, rank))
            with accelerator.accumulate(model):
                step_losses = model(batch.to(accelerator.device), noise)  # L_R, L_id, L: Eq. 9, 10, 4, 11
                accelerator.backward(step_losses.total)
                running.add(step_losses)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(parameters.values(), config.clip_norm)
                optimizer.step()
                optimizer.zero_grad()
        update_ema(ema, parameters, min(config.ema, (step + 1) / (step + 10)))
        done = step + 1
        if not running.finite():
            raise ValueError(f"the loss is not a finite number at step {done}: lower lr or warm up longer")

        if done % config.log_every == 0 or done == config.steps:
            losses = running.means(accelerator)
            bar.set_postfix(loss=f"{losses['total']:.4f}")
            if writer:
                for name, value in losses.items():
                    writer.add_scalar(f"loss/{name}", value, done)
                writer.add_scalar("data/unreadable", skips.failed, done)
        if writer and pool and (done % config.gaps_every == 0 or done == config.steps):
            rounds = 8 if done == config.steps else 1
            gaps = condition_gaps(framework, pool.batch, pool.identities, config.seed, max(2, config.batch), rounds)
            echo(f"step {done}: loss gaps " + ", ".join(f"{name} {gap:.3f}" for name, gap in gaps.items()))
            for name, gap in gaps.items():
                writer.add_scalar(f"gap/{name}", gap, done)
        if writer and pool and (done % config.sample_every == 0 or done == config.steps):
            fps = train.spec.fps if train.spec.stride is None else 30 / train.spec.stride
            add_video(writer, "samples", previews(framework, pool.batch, config), done, fps)
        if main and (done % config.checkpoint_every == 0 or done == config.steps):
            save(output, done, framework, optimizer, ema, config, train)
        accelerator.wait_for_everyone()
    if writer:
        writer.close()
    result = {
        "step": config.steps,
        "loss": losses,
        "gaps": gaps,
        "skipped": dict(pair for reasons in gather_object([skips.reasons]) for pair in reasons.items()),
        "held_out": held_out is not train,
    }
    if main and losses:
        with whole(output / "fit.json") as temporary:
            temporary.write_text(json.dumps(result, indent=1))
    return result


def learning_rate(config: FitConfig, step: int) -> float:
    """It rises over config.warmup steps, and then stays or falls to 0 along half a cosine."""
    rate = config.lr * min(1.0, (step + 1) / max(1, config.warmup))
    return rate * (1 + math.cos(math.pi * step / config.steps)) / 2 if config.lr_decay == "cosine" else rate


def generator(seed: int, micro: int, rank: int) -> torch.Generator:
    """The random numbers of one pass of one rank."""
    state = np.random.SeedSequence([seed, micro, rank]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)


@torch.no_grad()
def update_ema(ema: dict[str, Tensor], parameters: dict[str, Any], decay: float) -> None:
    """ema = decay ema + (1 - decay) parameter; the decay starts low, so that early averages forget the start."""
    for name, parameter in parameters.items():
        ema[name].lerp_(parameter.detach(), 1 - decay)
