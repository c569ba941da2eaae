"""Speed and memory of the trainer: our step against a bare diffusers loop with the same UNet and batch, part by part.

    python -m benchmarks.train [--preset embedded|paper] [--set batch=N] [--steps N] [--device cuda]
        [--manifest RUN] [--keep]

Random weights, made-up batches of the right shapes. Each line adds one part to the line before it, in a process of
its own. `paper` is the true size of Stable Diffusion 1.5 with AnimateDiff and needs a large GPU.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import keep
from training.arcface import ArcFace, SmallIResNet, small_arcface
from training.batch import Batch, Entry
from training.cache import Cache
from training.components import Components, noise_schedule
from training.config import FitConfig, fit_config
from training.framework import Drops, Framework
from training.losses import region_loss
from training.model import AdapterSpec, install, sd15_unet
from training.small import PixelVAE, small_tokenizer, small_unet

FRAMES = 16
TOKENIZER_TEXT = ["a face moves left right up down"]


def components(config: FitConfig, device: str, adapter: bool) -> Components:
    """Models with random weights on the device; the adapter is installed when asked for."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    tokenizer = small_tokenizer(TOKENIZER_TEXT)
    vae: Any
    with torch.device(device):
        if config.base == "scratch":
            unet, vae, arcface = small_unet(config, FRAMES), PixelVAE(config.patch, config.latents), small_arcface()
            text_size, vision_size = (config.text_dim, 2, 4), (config.text_dim, 2, 4, 32, 8)
        else:
            unet = sd15_unet()
            vae = AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
                scaling_factor=0.18215,
            )
            arcface = ArcFace(SmallIResNet((64, 128, 256, 512), 512, 112), 512, 112)
            text_size, vision_size = (768, 12, 12), (1280, 32, 16, 224, 14)
        width, layers, heads = text_size
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        width, layers, heads, side, patch = vision_size
        image = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=width,
                intermediate_size=4 * width,
                projection_dim=width,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                image_size=side,
                patch_size=patch,
            )
        )
        spec = AdapterSpec(arcface.dim, width, config.id_tokens, config.motion_tokens, config.motion_control)
        if adapter:
            install(unet, spec)
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return Components(unet, vae, text, tokenizer, image, arcface, noise_schedule(config), spec)


def made_up(config: FitConfig, batch: int) -> Batch:
    """A batch of noise with a face in the middle."""
    generator = torch.Generator().manual_seed(0)
    size = config.size
    video = torch.rand(batch, FRAMES, 3, size, size, generator=generator) * 2 - 1
    warp = torch.tensor([[224 / size, 0, -56], [0, 224 / size, -56]]).expand(batch, -1, -1)
    return Batch(
        clip_id=[str(i) for i in range(batch)],
        video=video,
        face=video[:, 0],
        reference=video[:, 1],
        reference_warp=warp,
        id_frames=torch.randint(0, FRAMES, (batch, config.identity_frames), generator=generator),
        id_warps=warp[:, None].expand(-1, config.identity_frames, -1, -1),
        has_face=torch.ones(batch, dtype=torch.bool),
        m=torch.linspace(0, 20, batch),
        caption=["a face"] * batch,
        action=["moves left"] * batch,
        flow=torch.randint(0, 256, (batch, FRAMES - 1, size // 8, size // 8), generator=generator, dtype=torch.uint8),
        entry=[Entry()] * batch,
        skipped=[],
    )


def bare(config: FitConfig, device: str, batch: Batch) -> tuple[Callable[[], torch.Tensor], list[Any]]:
    """What a plain diffusers training script does: noise, the UNet with text, mean squared error.

    It trains AnimateDiff's motion modules, or at the embedded preset the whole small UNet.
    """
    parts = components(config, device, adapter=False)
    unet, scheduler = parts.unet, parts.scheduler
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(config.base == "scratch" or "motion_modules" in name)
    latent = config.size // (config.patch if config.base == "scratch" else 8)
    z0 = torch.randn(len(batch.clip_id), unet.config.in_channels, FRAMES, latent, latent, device=device)
    text = torch.randn(len(z0), 24, unet.config.cross_attention_dim, device=device)

    def step() -> torch.Tensor:
        noise = torch.randn_like(z0)
        t = torch.randint(0, 1000, (len(z0),), device=device)
        hidden = text.repeat_interleave(FRAMES, 0)
        prediction = unet(scheduler.add_noise(z0, noise, t), t, encoder_hidden_states=hidden).sample
        return region_loss(prediction, noise).mean()

    return step, [p for p in unet.parameters() if p.requires_grad]


def ours(config: FitConfig, device: str, batch: Batch, t: int) -> tuple[Callable[[], torch.Tensor], list[Any]]:
    """Our step with every sample at noise step `t`, so that L_id counts for all samples or for none."""
    framework = Framework(components(config, device, adapter=True), config).to(device).train()
    generator = torch.Generator().manual_seed(0)
    batch = batch.to(torch.device(device))

    def step() -> torch.Tensor:
        noise = framework.noise(batch, generator)
        return framework(batch, replace(noise, t=torch.full_like(noise.t, t), drops=Drops.none(len(noise.t)))).total

    return step, list(framework.trainable().values())


def measure(config: FitConfig, device: str, steps: int, t: int | None) -> dict[str, float]:
    """Median seconds of a step with backward pass and AdamW, and the peak of memory in GiB; t: see `ours`, None for the
    bare loop. To be called once in a process.

    On a CPU it is CPU time summed over threads, which what else the machine does disturbs least, and the most memory
    that the process had, beyond what it had before there was a model.
    """
    before = resident_gib()
    torch.manual_seed(0)
    batch = made_up(config, config.batch)
    step, parameters = bare(config, device, batch) if t is None else ours(config, device, batch, t)
    optimizer = torch.optim.AdamW(parameters)
    cuda, bf16 = device.startswith("cuda"), config.precision == "bf16"
    clock = time.perf_counter if cuda else time.process_time
    seconds = []
    for _ in range(steps + 1):
        started = clock()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            loss = step()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if cuda:
            torch.cuda.synchronize()
        seconds.append(clock() - started)
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else resident_gib() - before
    return {"seconds": float(np.median(seconds[1:])), "gib": peak, "trained": sum(p.numel() for p in parameters)}


def resident_gib() -> float:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def waiting(manifest: str, config: FitConfig, cache: Cache | None, device: str, steps: int) -> dict[str, float]:
    """Median wall seconds a step of training on a run's clips, and of it those that it waits for its batch, with
    config.workers workers."""
    from torch.utils.data import DataLoader

    from training.batch import collate
    from training.data import ClipDataset, Manifest
    from training.draws import BalancedBatches

    train = Manifest.read(manifest, "train")
    framework = Framework(components(config, device, adapter=True), config).to(device).train()
    parameters = list(framework.trainable().values())
    optimizer, generator = torch.optim.AdamW(parameters), torch.Generator().manual_seed(0)
    dataset = ClipDataset(train, config, None if cache is None else framework.use(cache))
    draws = BalancedBatches(train.weights, config.batch, config.seed)
    loader = iter(DataLoader(dataset, batch_sampler=draws, collate_fn=collate, num_workers=config.workers))
    waits, seconds = [], []
    for _ in range(steps + 1):
        started = time.perf_counter()
        batch = next(loader)
        waits.append(time.perf_counter() - started)
        noise = framework.noise(batch, generator)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss = framework(batch.to(torch.device(device)), noise).total
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())  # waits for the device
        seconds.append(time.perf_counter() - started)
    return {"step": float(np.median(seconds[1:])), "waited_for_data": float(np.median(waits[1:]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("embedded", "paper"), default="embedded")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--manifest", help="a run's output folder: measures the data loader too")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override a setting")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results/train-PRESET-DEVICE.json")
    args = parser.parse_args()

    def config(*more: str) -> FitConfig:
        return fit_config(args.preset, [*args.set, *more])

    rows: dict[str, dict[str, float]] = {}

    def row(name: str, of: FitConfig, t: int | None) -> None:
        with ProcessPoolExecutor(1, get_context("spawn")) as own:
            rows[name] = own.submit(measure, of, args.device, args.steps, t).result()
        seconds, gib, trained = rows[name].values()
        print(f"{name:<44}{seconds:>9.3f} s{gib:>8.2f} GiB{trained / 1e6:>9.2f} M trained", flush=True)

    plain = ("region_loss=false", "identity_loss=false")
    row("bare diffusers loop", config(), None)
    row("+ identity branch, encoders", config(*plain, "motion_control=false"), 500)
    row("+ motion blocks", config(*plain), 500)
    row("+ L_R", config("identity_loss=false"), 500)
    row("+ L_id, t >= t_max (most steps)", config(), 500)
    row("+ L_id, on every sample", config(), 100)
    result: dict[str, Any] = {"preset": args.preset, "batch": config().batch, "device": args.device, "rows": rows}
    result["threads"] = torch.get_num_threads()
    result["seconds_are"] = "wall" if args.device.startswith("cuda") else "CPU time, all threads"
    if args.device.startswith("cuda"):
        result["gpu"] = torch.cuda.get_device_name()
    if args.manifest:
        result["workers"], result["load_average"] = config().workers, os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as folder:
            for name, cache in (
                ("no cache", None),
                ("cache, filling", Cache(Path(folder))),
                ("cache", Cache(Path(folder))),
            ):
                found = waiting(args.manifest, config(), cache, args.device, args.steps)
                result.setdefault("wall_seconds", {})[name] = found
                step, wait = found.values()
                print(f"{'a step on clips, ' + name:<44}{step:>9.3f} s, {wait:.3f} s of it waiting for data")
    if args.keep:
        print(keep(f"train-{args.preset}-{args.device.partition(':')[0]}", result, "torch", "diffusers"))


if __name__ == "__main__":
    main()
