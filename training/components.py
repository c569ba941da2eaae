"""The models a run is made of: loaded from published layouts, or small ones built from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from stages import weights
from training.arcface import ArcFace, load_onnx
from training.config import FitConfig
from training.model import AdapterSpec, install, spatial_transformers
from training.small import PixelVAE, small_image_encoder, small_text_encoder, small_unet

SCRATCH = "scratch"


@dataclass
class Components:
    """Everything between a batch and a loss. `trained_along`: text and image encoder built from scratch."""

    unet: UNetMotionModel
    vae: AutoencoderKL | PixelVAE
    text_encoder: CLIPTextModel
    tokenizer: Any
    image_encoder: CLIPVisionModelWithProjection
    arcface: ArcFace
    scheduler: DDIMScheduler
    spec: AdapterSpec


def noise_schedule(config: FitConfig) -> DDIMScheduler:
    """AnimateDiff's schedule (linear betas, not Stable Diffusion's scaled_linear), or as the config says."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=config.beta_schedule,
        clip_sample=False,
        steps_offset=1,
        prediction_type=config.prediction_type,
        rescale_betas_zero_snr=config.zero_terminal_snr,
        timestep_spacing=config.timestep_spacing,
    )


def resolve(name: str) -> Path | None:
    """The folder or file `name`: a path, or below one of the weights folders; None where it lies nowhere."""
    for path in (Path(name).expanduser(), *(folder / name for folder in weights.folders())):
        if path.exists():
            return path
    return None


def missing(config: FitConfig) -> list[str]:
    """One line for each model of this config that lies nowhere."""
    lines = []
    for key in ("base", "motion_adapter", "image_encoder", "ip_adapter"):
        name = getattr(config, key)
        if name not in (SCRATCH, None) and resolve(name) is None:
            lines.append(f"{key}={name}: no such path, and not in {weights.folders()[0]}")
    if config.arcface in weights.WEIGHTS:
        if weights.find(config.arcface) is None:
            lines.append(f"arcface={config.arcface}: {weights.how_to_get(config.arcface)}")
    elif config.arcface != "train" and resolve(config.arcface) is None:
        lines.append(f"arcface={config.arcface}: no such path, and not in {weights.folders()[0]}")
    return lines


def load_arcface(config: FitConfig) -> ArcFace:
    """The ArcFace that the config names (not "train")."""
    if config.arcface in weights.WEIGHTS:
        return load_onnx(weights.require([config.arcface])[config.arcface])
    path = resolve(config.arcface)
    assert path is not None
    return load_onnx(path)


def build(config: FitConfig, arcface: ArcFace, frames: int, tokenizer: Any) -> Components:
    """All components with the adapter installed, on the CPU. `tokenizer` is used with base=scratch alone.

    Random weights depend on config.seed alone. Raises ValueError when model files are missing or do not fit together.
    """
    if lines := missing(config):
        raise ValueError("model files are missing:\n  " + "\n  ".join(lines))
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        if config.base == SCRATCH:
            vae, text_encoder, unet = _small_base(config, frames, tokenizer)
        else:
            vae, text_encoder, tokenizer, unet = _published_base(config)
        image_encoder = _image_encoder(config)
        spec = AdapterSpec(
            arc_dim=arcface.dim,
            clip_dim=image_encoder.config.hidden_size,
            id_tokens=config.id_tokens,
            motion_tokens=config.motion_tokens,
            motion_control=config.motion_control,
            lambda_=config.lambda_,
            alpha=config.alpha,
        )
        install(unet, spec)
    if config.ip_adapter is not None:
        load_ip_adapter(unet, resolve(config.ip_adapter))
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    scheduler = noise_schedule(config)
    return Components(unet, vae, text_encoder, tokenizer, image_encoder, arcface, scheduler, spec)


def _published_base(config: FitConfig) -> tuple[Any, ...]:
    base, motion = resolve(config.base), resolve(config.motion_adapter)
    unet2d = UNet2DConditionModel.from_pretrained(base, subfolder="unet", local_files_only=True)
    adapter = MotionAdapter.from_pretrained(motion, local_files_only=True)
    unet = UNetMotionModel.from_unet2d(unet2d, adapter)
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae", local_files_only=True)
    text_encoder = CLIPTextModel.from_pretrained(base, subfolder="text_encoder", local_files_only=True)
    tokenizer = CLIPTokenizer.from_pretrained(base, subfolder="tokenizer", local_files_only=True)
    return vae, text_encoder, tokenizer, unet


def _small_base(config: FitConfig, frames: int, tokenizer: Any) -> tuple[Any, ...]:
    if config.motion_adapter != SCRATCH:
        raise ValueError("motion_adapter must be scratch where base is: it fits no other UNet than its own")
    vae = PixelVAE(config.patch, config.latents, config.latent_scale)
    return vae, small_text_encoder(config, tokenizer), small_unet(config, frames)


def _image_encoder(config: FitConfig) -> CLIPVisionModelWithProjection:
    if config.image_encoder != SCRATCH:
        return CLIPVisionModelWithProjection.from_pretrained(resolve(config.image_encoder), local_files_only=True)
    return small_image_encoder(config)


def load_ip_adapter(unet: UNetMotionModel, path: Path | None) -> None:
    """Start K^i and V^i from an IP-Adapter's, in its published layout: `ip_adapter.<n>.to_k_ip.weight` in safetensors.

    Raises ValueError when the file has none, or another number of sites. n counts cross-attentions: down, up, middle.
    """
    from safetensors.torch import load_file

    assert path is not None
    state = {k.removeprefix("ip_adapter."): v for k, v in load_file(path).items() if "to_k_ip" in k or "to_v_ip" in k}
    numbers = sorted({int(name.split(".")[0]) for name in state})
    blocks = [*unet.down_blocks, *unet.up_blocks, unet.mid_block]
    sites = [t.transformer_blocks[0].attn2.processor for block in blocks for t in spatial_transformers(block)]
    if len(numbers) != len(sites):
        raise ValueError(f"{path}: has {len(numbers)} attention sites, the UNet has {len(sites)}")
    for number, processor in zip(numbers, sites, strict=True):
        processor.to_k_ip[0].weight.data.copy_(state[f"{number}.to_k_ip.weight"])
        processor.to_v_ip[0].weight.data.copy_(state[f"{number}.to_v_ip.weight"])


def posterior_of(vae: AutoencoderKL | PixelVAE, video: Tensor) -> Tensor:
    """q(z | video) of one clip: (N, 3, H, W), -1..1 -> its mean and deviation, float32 (N, 2 C, h, w), not scaled.

    One clip at a time: results of a larger batch differ in their last bits, and the cache could not stand for them.
    Contiguous, as what is read from the cache is: the UNet's kernels choose by strides, and differ in their last bits.
    """
    if isinstance(vae, PixelVAE):
        mean = vae.encode(video)
        return torch.cat([mean, torch.zeros_like(mean)], 1)
    distribution = vae.encode(video.to(vae.dtype)).latent_dist
    return torch.cat([distribution.mean, distribution.std], 1).float().contiguous()


def latents_of(vae: AutoencoderKL | PixelVAE, posterior: Tensor, eta: Tensor) -> Tensor:
    """z0 drawn from posteriors: (B, N, 2 C, h, w), and standard normal eta (B, C, N, h, w) -> like eta, scaled."""
    mean, deviation = posterior.transpose(1, 2).chunk(2, dim=1)
    return (mean + deviation * eta) * vae.config.scaling_factor


def frames_of(vae: AutoencoderKL | PixelVAE, latents: Tensor) -> Tensor:
    """Latent frames (n, C, h, w), scaled -> pixels (n, 3, H, W), -1..1."""
    return vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample.float()
