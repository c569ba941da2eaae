"""Does the model use its conditions? Loss with a condition shuffled among clips, over the loss with the true one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from training.batch import Batch
from training.framework import Drops, Framework, Noise
from training.losses import region_loss

CONDITIONS: dict[str, tuple[str, ...]] = {
    "identity": ("face", "reference", "reference_warp"),
    "text": ("caption",),
    "action": ("action",),
    "motion": ("m",),
}


def shuffle(values: list[Any]) -> list[int]:
    """A permutation that gives each sample another's value: rotate the samples, sorted by value, by half.

    Equal values end up apart where the number of each allows it.
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    half = len(values) // 2
    result = [0] * len(values)
    for place, i in enumerate(order):
        result[i] = order[(place + half) % len(values)]
    return result


def shuffled(batch: Batch, condition: str, identities: list[str]) -> Batch:
    """The batch with one condition taken from other samples. identities: what tells faces apart, one a sample."""
    keys: dict[str, list[Any]] = {
        "identity": identities,
        "text": batch.caption,
        "action": batch.action,
        "motion": batch.m.tolist(),
    }
    order = shuffle(keys[condition])
    changes: dict[str, Any] = {}
    for name in CONDITIONS[condition]:
        value = getattr(batch, name)
        changes[name] = value[order] if isinstance(value, Tensor) else [value[i] for i in order]
    return replace(batch, **changes)


@torch.no_grad()
def condition_gaps(
    framework: Framework, batch: Batch, identities: list[str], seed: int, chunk: int = 8, rounds: int = 1
) -> dict[str, float]:
    """Loss gaps {"identity", "text", "action", "motion"} on these samples; 1 means that a condition is not used.

    Steps t are spread evenly over the schedule, the same for the true and the shuffled conditions, as is the noise.
    `chunk` samples go through the model at once. Losses are summed over `rounds` of other noise and other steps for
    each sample: with one round and 32 clips a gap near 1 is uncertain by some hundredths.
    """
    names = [name for name in CONDITIONS if framework.spec.motion_control or name in ("identity", "text")]
    generator = torch.Generator().manual_seed(seed)
    size, steps = len(batch.clip_id), framework.scheduler.config.num_train_timesteps
    was_training = framework.training
    framework.eval()
    true, wrong = 0.0, dict.fromkeys(names, 0.0)
    for turn in range(rounds):
        place = (torch.arange(size) + turn * size // rounds) % size
        t = ((place + torch.rand(size, generator=generator)) * steps / size).long()
        noise = replace(framework.noise(batch, generator), t=t, drops=Drops.none(size))
        true += _loss(framework, batch, noise, chunk)
        for name in names:
            wrong[name] += _loss(framework, shuffled(batch, name, identities), noise, chunk)
    framework.train(was_training)
    return {name: loss / true for name, loss in wrong.items()}


def _loss(framework: Framework, batch: Batch, noise: Noise, chunk: int) -> float:
    """Sum over samples of the plain diffusion loss."""
    device = framework.alpha_bar.device
    total = 0.0
    for first in range(0, len(batch.clip_id), chunk):
        rows = list(range(first, min(first + chunk, len(batch.clip_id))))
        part = batch.take(rows).to(device)
        t, epsilon = noise.t[rows].to(device), noise.epsilon[rows].to(device)
        z0 = framework.z0(part, noise.eta[rows].to(device))
        z_t = framework.scheduler.add_noise(z0, epsilon, t)
        text, c, _ = framework.condition(part, Drops.none(len(rows)))
        prediction = framework.predict(z_t, t, text, c)
        total += float(region_loss(prediction, framework.target(z0, epsilon, t)).sum())
    return total
