"""What a run would do and need, from models on the meta device: neither weights nor memory are needed to say so."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from stages.weight_table import WEIGHTS
from training.arcface import small_arcface
from training.components import SCRATCH, missing
from training.config import FitConfig
from training.data import Manifest
from training.model import AdapterSpec, adapter_parameters, conditions, install, pack_identity, sd15_unet
from training.small import small_unet

DECODED_FRAME = 6.0  # GiB that one frame of 512 x 512 keeps for the backward pass through SD's decoder, as measured
GIB = 2**30


def plan(manifests: str, config: FitConfig, roots: dict[str, str]) -> str:
    """What would be done, in lines. Raises ValueError when there is nothing to train on."""
    train, held_out = Manifest.read(manifests, "train", roots), Manifest.read(manifests, "val", roots)
    counts = parameter_counts(config, train)
    lines = [f"{name} = {value}" for name, value in config.model_dump().items()]
    lines.append(f"clips: {len(train.rows)} to train on, {len(held_out.rows)} held out")
    lines += [f"parameters of {name}: {count / 1e6:.1f} M" for name, count in counts.items()]
    lines += memory(config, counts, train.spec.count)
    lines += [f"missing: {line}" for line in missing(config)] or ["no model file is missing"]
    return "\n".join(lines)


def parameter_counts(config: FitConfig, manifest: Manifest) -> dict[str, int]:
    """Parameters by part: base, temporal, fusion, identity_kv, motion_blocks, intensity, and of what is frozen beside
    the UNet; and how many are trained."""
    unet = _unet(config, manifest.spec.count)
    temporal = sum(p.numel() for name, p in unet.named_parameters() if "motion_modules" in name)
    base = _size(unet) - temporal
    _install(unet, config)
    parts = {part: sum(p.numel() for p in named.values()) for part, named in adapter_parameters(unet).items()}
    trained = sum(parts.values()) + (base + temporal if config.base == SCRATCH else 0)
    return {"base": base, "temporal": temporal, **parts, **_beside(config), "trained": trained}


def memory(config: FitConfig, counts: dict[str, int], frames: int) -> list[str]:
    """Lines on the memory of one device, and the rule behind each. An estimate: fragments and buffers of libraries are
    not in it.

    Activations: what each layer of the UNet gives out, once; fused attention keeps no more. With checkpointing, what
    each block gives out, and the layers of the largest block. One sample is counted, the others are like it.
    """
    trained = counts["trained"]
    total = sum(counts.values()) - trained
    layers, blocks, largest = _outputs(config, frames)
    width = 2 if config.precision == "bf16" else 4
    kept = (blocks + largest if config.gradient_checkpointing else layers) * config.batch * width / GIB
    rule = "outputs of blocks, layers of the largest" if config.gradient_checkpointing else "outputs of all layers"
    # Weights in float32; of what is trained also gradient, two moments of AdamW and the moving average.
    weights = (4 * total + 16 * trained) / GIB
    lines = [
        f"memory of weights, gradients, AdamW, EMA: {weights:.1f} GiB",
        f"memory of activations, batch {config.batch}: {kept:.1f} GiB ({rule}, {config.precision})",
    ]
    decoding = 0.0
    if config.identity_loss and config.base != SCRATCH:
        decoding = DECODED_FRAME * (config.size / 512) ** 2
        lines.append(f"memory of L_id: {decoding:.1f} GiB (one decoded frame at a time)")
    return [*lines, f"memory of a device: about {weights + kept + decoding:.1f} GiB"]


def _unet(config: FitConfig, frames: int) -> nn.Module:
    with torch.device("meta"):
        return small_unet(config, frames) if config.base == SCRATCH else sd15_unet()


def _widths(config: FitConfig) -> tuple[int, int]:
    """Of E_arc and E_clip."""
    arc = 64 if config.arcface == "train" else 512
    return arc, config.text_dim if config.image_encoder == SCRATCH else 1280


def _install(unet: nn.Module, config: FitConfig) -> None:
    with torch.device("meta"):
        spec = AdapterSpec(*_widths(config), config.id_tokens, config.motion_tokens, config.motion_control)
        install(unet, spec)


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _beside(config: FitConfig) -> dict[str, int]:
    """Parameters of VAE, encoders and ArcFace, in the published sizes; small ones, of less than a million, left out."""
    found = {}
    with torch.device("meta"):
        if config.base != SCRATCH:
            found["vae"] = _size(
                AutoencoderKL(
                    block_out_channels=(128, 256, 512, 512),
                    down_block_types=("DownEncoderBlock2D",) * 4,
                    up_block_types=("UpDecoderBlock2D",) * 4,
                    layers_per_block=2,
                )
            )
            text = CLIPTextConfig(
                hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
            )  # ViT-L/14
            found["text_encoder"] = _size(CLIPTextModel(text))
        if config.image_encoder != SCRATCH:
            vision = CLIPVisionConfig(
                hidden_size=1280,
                intermediate_size=5120,
                projection_dim=1024,
                num_hidden_layers=32,
                num_attention_heads=16,
                patch_size=14,
            )  # ViT-H/14
            found["image_encoder"] = _size(CLIPVisionModelWithProjection(vision))
    if config.arcface == "train":
        found["arcface"] = _size(small_arcface())
    elif config.arcface in WEIGHTS:
        found["arcface"] = (WEIGHTS[config.arcface].size or 0) // 4  # a file of float32
    return found


def _outputs(config: FitConfig, frames: int) -> tuple[int, int, int]:
    """Numbers that the UNet's layers give out for one sample, that its blocks do, and that the layers of the largest
    block do."""
    unet = _unet(config, frames)
    _install(unet, config)
    layers = blocks = inside = largest = 0

    def layer(module: nn.Module, given: object, out: object) -> None:
        nonlocal layers, inside
        if isinstance(out, torch.Tensor):
            layers += out.numel()
            inside += out.numel()

    def begin(*_: object) -> None:
        nonlocal inside
        inside = 0

    def end(module: nn.Module, given: object, out: torch.Tensor) -> None:
        nonlocal blocks, largest
        blocks += out.numel()
        largest = max(largest, inside)

    for module in unet.modules():
        if not list(module.children()):
            module.register_forward_hook(layer)
        if isinstance(module, BasicTransformerBlock | ResnetBlock2D):
            module.register_forward_pre_hook(begin)
            module.register_forward_hook(end)
    arc, clip = _widths(config)
    side = config.size // (config.patch if config.base == SCRATCH else 8)
    tokens, width = (24, config.text_dim) if config.base == SCRATCH else (77, 768)
    patches = 17 if config.image_encoder == SCRATCH else 257
    with torch.device("meta"), torch.no_grad():
        identity = pack_identity(torch.empty(1, arc), torch.empty(1, patches, clip))
        c = conditions(identity, torch.empty(1, tokens, width), torch.empty(1), config.motion_control)
        z_t = torch.empty(1, unet.config.in_channels, frames, side, side)
        text = torch.empty(frames, tokens, width)
        unet(z_t, torch.zeros(1), encoder_hidden_states=text, added_cond_kwargs={"image_embeds": c})
    return layers, blocks, largest
