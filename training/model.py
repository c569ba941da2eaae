"""The MotionCharacter modules (arXiv 2411.18281, section 3) and their installation on diffusers' UNetMotionModel.

They hang on public mechanisms of diffusers alone, so a stock `AnimateDiffPipeline` runs the result:

- identity: `encoder_hid_proj` makes C_id (Eq. 2), an IP-Adapter attention processor at each spatial text
  cross-attention adds it (Eq. 3);
- motion: a transformer block appended after each spatial base block attends to action and intensity (Eq. 8).

The pipeline's `ip_adapter_image_embeds` is the list [identity, action, intensity], see `conditions`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNetMotionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import MultiIPAdapterImageProjection
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

M_MAX = 20.0  # appendix A.5: motion intensity is capped here


@dataclass(frozen=True)
class AdapterSpec:
    """Sizes and switches of the adapter. The paper prints none of them but the widths of the encoders it names.

    id_tokens: n of C_id. motion_tokens: tokens that stand for M; with one, softmax over a single key is always 1 and
    K^m and the queries would get no gradient, so two is the least.
    """

    arc_dim: int = 512
    clip_dim: int = 1280
    id_tokens: int = 16
    motion_tokens: int = 4
    motion_control: bool = True
    lambda_: float = 1.0
    alpha: float = 1.0


class IdentityProjection(nn.Module):
    """Eq. 2: C_id = LayerNorm(Proj(CrossAttention(q = E_arc, kv = E_clip + E_arc)))."""

    def __init__(self, spec: AdapterSpec, text_dim: int, heads: int) -> None:
        super().__init__()
        self.arc_dim, self.clip_dim, self.tokens = spec.arc_dim, spec.clip_dim, spec.id_tokens
        self.arc_in = nn.Linear(spec.arc_dim, text_dim)
        self.clip_in = nn.Linear(spec.clip_dim, text_dim)
        self.queries = nn.Linear(spec.arc_dim, spec.id_tokens * text_dim)
        self.attention = Attention(text_dim, cross_attention_dim=text_dim, heads=heads, dim_head=text_dim // heads)
        self.proj = nn.Linear(text_dim, text_dim)
        self.norm = nn.LayerNorm(text_dim)

    def forward(self, identity: Tensor) -> Tensor:
        """(B, 1 + L, max(arc_dim, clip_dim)) as `pack_identity` makes it -> C_id (B, id_tokens, text_dim)."""
        identity = identity.to(self.proj.weight.dtype)
        arc, clip = identity[:, 0, : self.arc_dim], identity[:, 1:, : self.clip_dim]
        # A dropped E_clip is all zeros. It is zeroed after its linear map too, so that no bias leaks.
        present = (clip != 0).flatten(1).any(1)[:, None, None]
        e_clip = self.clip_in(clip) * present  # (B, L, text_dim)
        e_arc = self.arc_in(arc)[:, None]  # (B, 1, text_dim)
        e = e_clip + e_arc
        q = self.queries(arc).unflatten(1, (self.tokens, -1))  # (B, id_tokens, text_dim)
        return self.norm(self.proj(self.attention(q, encoder_hidden_states=e)))


class IntensityEmbedding(nn.Module):
    """M / 20 -> Fourier features -> MLP -> several tokens of the text width."""

    def __init__(self, tokens: int, text_dim: int, frequencies: int = 8) -> None:
        super().__init__()
        if tokens < 2:
            raise ValueError(f"motion_tokens is {tokens}: at least 2 are needed, one token gives K^m no gradient")
        self.tokens = tokens
        self.frequencies = frequencies
        self.mlp = nn.Sequential(
            nn.Linear(2 * frequencies + 1, text_dim), nn.SiLU(), nn.Linear(text_dim, tokens * text_dim)
        )

    def forward(self, m: Tensor) -> Tensor:
        """M (B,), grid pixels per grid step, clipped to 0..20 -> tokens (B, motion_tokens, text_dim)."""
        x = m.float().clamp(0.0, M_MAX)[:, None] / M_MAX
        octaves = math.pi * 2.0 ** torch.arange(self.frequencies, device=m.device) / 2
        features = torch.cat([x, torch.sin(x * octaves), torch.cos(x * octaves)], 1)
        return self.mlp(features.to(self.mlp[0].weight.dtype)).unflatten(1, (self.tokens, -1))


class MotionControlBlock(nn.Module):
    """Eq. 8: a whole transformer block; its cross-attention is Attention(Q, K^a, V^a) + alpha Attention(Q, K^m, V^m).

    It starts as a copy of the base block with zeroed output projections: at step 0 it is the identity, exactly.
    """

    def __init__(self, base: BasicTransformerBlock, spec: AdapterSpec) -> None:
        super().__init__()
        self.block = copy.deepcopy(base)
        attend_beside(self.block.attn2, tokens=spec.motion_tokens, scale=spec.alpha)  # K^m, V^m
        for out in (self.block.attn1.to_out[0], self.block.attn2.to_out[0], self.block.ff.net[-1]):
            nn.init.zeros_(out.weight)
            nn.init.zeros_(out.bias)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Any = None,
        *rest: Any,
        **named: Any,
    ) -> Tensor:
        """Same arguments as the base block's. encoder_hidden_states: (text, [C_id, action, motion])."""
        _, (_, action, motion) = encoder_hidden_states
        return self.block(hidden_states, attention_mask, (action.squeeze(1), [motion]), *rest, **named)


def attend_beside(attention: Attention, tokens: int, scale: float) -> None:
    """Eq. 3 and 8: let `attention` attend with the same queries to a second set of tokens: Z + scale Z'.

    The new keys and values start as copies of the text's.
    """
    processor = IPAdapterAttnProcessor2_0(
        hidden_size=attention.inner_dim,
        cross_attention_dim=attention.cross_attention_dim,
        num_tokens=(tokens,),
        scale=scale,
    ).to(device=attention.to_k.weight.device, dtype=attention.to_k.weight.dtype)
    processor.to_k_ip[0].load_state_dict(attention.to_k.state_dict())
    processor.to_v_ip[0].load_state_dict(attention.to_v.state_dict())
    attention.set_processor(processor)


def spatial_transformers(unet: UNetMotionModel) -> Iterator[Transformer2DModel]:
    """The spatial transformers (16 in SD 1.5). Temporal modules are AnimateDiffTransformer3D and never among them."""
    return (module for module in unet.modules() if isinstance(module, Transformer2DModel))


def sd15_unet() -> UNetMotionModel:
    """A UNet of the size of Stable Diffusion 1.5 with AnimateDiff's motion modules, random weights."""
    return UNetMotionModel(cross_attention_dim=768, num_attention_heads=8)


def install(unet: UNetMotionModel, spec: AdapterSpec) -> None:
    """Add the adapter to `unet`, in place. Before any training the output equals the base's text path with C_id.

    Raises ValueError when `unet` carries an image adapter already.
    """
    if unet.encoder_hid_proj is not None:
        raise ValueError("the UNet already has an image adapter installed")
    text_dim = unet.config.cross_attention_dim
    heads = next(spatial_transformers(unet)).transformer_blocks[0].attn2.heads
    for transformer in list(spatial_transformers(unet)):
        blocks: list[nn.Module] = []
        for base in transformer.transformer_blocks:
            blocks.append(base)
            if spec.motion_control:
                blocks.append(MotionControlBlock(base, spec))
            attend_beside(base.attn2, tokens=spec.id_tokens, scale=spec.lambda_)  # K^i, V^i of Eq. 3
        transformer.transformer_blocks = nn.ModuleList(blocks)
    projections: list[nn.Module] = [IdentityProjection(spec, text_dim, heads)]
    if spec.motion_control:
        projections += [nn.Identity(), IntensityEmbedding(spec.motion_tokens, text_dim)]
    unet.encoder_hid_proj = MultiIPAdapterImageProjection(projections).to(device=unet.device, dtype=unet.dtype)
    unet.register_to_config(encoder_hid_dim_type="ip_image_proj")


def adapter_parameters(unet: UNetMotionModel) -> dict[str, dict[str, nn.Parameter]]:
    """What the paper trains, by part: fusion (Eq. 2), identity_kv (Eq. 3), motion_blocks (Eq. 8), intensity."""
    parts: dict[str, dict[str, nn.Parameter]] = {"fusion": {}, "identity_kv": {}, "motion_blocks": {}, "intensity": {}}
    for name, parameter in unet.named_parameters():
        if name.startswith("encoder_hid_proj.image_projection_layers.0."):
            parts["fusion"][name] = parameter
        elif name.startswith("encoder_hid_proj."):
            parts["intensity"][name] = parameter
        elif ".block." in name:
            parts["motion_blocks"][name] = parameter
        elif "_ip." in name:
            parts["identity_kv"][name] = parameter
    return parts


def set_scales(unet: UNetMotionModel, lambda_: float | None = None, alpha: float | None = None) -> None:
    """Change lambda of Eq. 3 and alpha of Eq. 8; 0 switches a branch off, None leaves it."""
    for transformer in spatial_transformers(unet):
        for block in transformer.transformer_blocks:
            if isinstance(block, MotionControlBlock):
                attention, scale = block.block.attn2, alpha
            else:
                attention, scale = block.attn2, lambda_
            if scale is not None:
                attention.processor.scale = [scale]


def pack_identity(arc: Tensor, clip: Tensor) -> Tensor:
    """E_arc (B, arc_dim) and E_clip (B, L, clip_dim) as the one tensor (B, 1, 1 + L, D) a pipeline can hand on.

    Zeros stand for a dropped embedding.
    """
    width = max(arc.shape[-1], clip.shape[-1])
    tokens = [nn.functional.pad(x, (0, width - x.shape[-1])) for x in (arc[:, None], clip)]
    return torch.cat(tokens, 1)[:, None]


def conditions(identity: Tensor, action: Tensor, m: Tensor, motion_control: bool = True) -> list[Tensor]:
    """`image_embeds` of the UNet and `ip_adapter_image_embeds` of the pipeline.

    identity: `pack_identity`'s (B, 1, 1 + L, D). action: text embedding of A (B, T, text_dim). m: M (B,).
    """
    return [identity, action[:, None], m[:, None]] if motion_control else [identity]
