"""DOVER's two backbones and heads (Wu et al., ICCV 2023, arXiv 2211.04894).

Technical branch: Video Swin Transformer tiny (arXiv 2106.13230) with FAST-VQA's gated relative position bias
(arXiv 2207.02595). Aesthetic branch: ConvNeXt tiny (arXiv 2201.03545), inflated to three dimensions. Written from the
papers; names and shapes of the parameters are those of the published DOVER.pth (VQAssessment/DOVER, dover/models/),
so that it loads strictly. Features are channels-last: (B, D, H, W, C), D frames / 2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW = (8, 7, 7)
DEPTHS, HEADS = (2, 2, 6, 2), (3, 6, 12, 24)
GATED = (True, True, True, False)  # stages with a bias of their own within a fragment
CONV_DEPTHS, CONV_WIDTHS = (3, 3, 9, 3), (96, 192, 384, 768)
CONV_LENGTHS = (1, 3, 1)  # kernel sizes over time, in turn
Triple = tuple[int, int, int]


def _each(function: Callable[[int, int], int], a: Triple, b: Triple) -> Triple:
    return function(a[0], b[0]), function(a[1], b[1]), function(a[2], b[2])


def windows(x: Tensor, window: Triple) -> Tensor:
    """(B, D, H, W, C), divisible -> (B x windows, window's tokens, C)."""
    b, d, h, w, c = x.shape
    wd, wh, ww = window
    x = x.reshape(b, d // wd, wd, h // wh, wh, w // ww, ww, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, wd * wh * ww, c)


def unwindowed(x: Tensor, window: Triple, size: Triple) -> Tensor:
    """The inverse of `windows`; size is (D, H, W)."""
    (d, h, w), (wd, wh, ww) = size, window
    x = x.reshape(-1, d // wd, h // wh, w // ww, wd, wh, ww, x.shape[-1])
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, d, h, w, x.shape[-1])


def relative_positions() -> Tensor:
    """int64 (tokens, tokens): row of the bias table for each pair of tokens of a window."""
    at = torch.stack(torch.meshgrid(*(torch.arange(n) for n in WINDOW), indexing="ij")).flatten(1)
    steps = (at[:, :, None] - at[:, None]).permute(1, 2, 0) + torch.tensor(WINDOW) - 1
    _, h, w = (2 * n - 1 for n in WINDOW)
    return steps[..., 0] * h * w + steps[..., 1] * w + steps[..., 2]


def regions(size: Triple, window: Triple, shift: Triple) -> Tensor:
    """(windows, tokens): which piece of the picture each token of a shifted window comes from."""
    labels = torch.zeros(1, *size, 1)
    for axis, (n, w, s) in enumerate(zip(size, window, shift, strict=True)):
        if s:
            along = torch.zeros(n)
            along[n - w : n - s], along[n - s :] = 1, 2
            labels = labels * 3 + along.reshape([n if i == axis else 1 for i in range(3)])[None, ..., None]
    return windows(labels, window)[..., 0]


@lru_cache(maxsize=16)
def fragment_distances(size: Triple, window: Triple, shift: Triple) -> Tensor:
    """uint8 (windows, tokens, tokens): by how many fragments two tokens are apart, rows plus columns.

    The picture is a mosaic of as many fragments each way as a window has tokens that way.
    """
    apart: list[Tensor] = []
    for axis in (1, 2):
        shape = [size[axis] if i == axis else 1 for i in range(3)]
        fragment = (torch.arange(size[axis]) * window[axis] // size[axis]).reshape(shape).expand(size)
        at = windows(fragment[None, ..., None].roll([-s for s in shift], dims=(1, 2, 3)), window)[..., 0].to(torch.int8)
        apart.append((at[:, None] - at[:, :, None]).abs())
    return (apart[0] + apart[1]).to(torch.uint8)


class WindowAttention(nn.Module):
    """Attention within a window with relative position bias; between fragments and within one they differ."""

    def __init__(self, width: int, heads: int, gated: bool) -> None:
        super().__init__()
        table = (math.prod(2 * n - 1 for n in WINDOW), heads)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(table))
        self.fragment_position_bias_table = nn.Parameter(torch.zeros(table)) if gated else None
        self.relative_position_index: Tensor
        self.register_buffer("relative_position_index", relative_positions())
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor, distance: Tensor, mask: Tensor | None) -> Tensor:
        """x (B x windows, n, C); distance uint8 (windows, n, n) in fragments; mask (windows, n, n), 0 or -100."""
        count, n, c = x.shape
        q, k, v = self.qkv(x).reshape(count, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        bias = self._bias(self.relative_position_bias_table, n)[None]  # (1, heads, n, n)
        if self.fragment_position_bias_table is not None:
            gate = distance[:, None].float()
            bias = bias * gate + self._bias(self.fragment_position_bias_table, n) * (1 - gate)
        if mask is not None:
            bias = bias + mask[:, None]
        bias = bias.expand(len(distance), -1, -1, -1).repeat(count // len(distance), 1, 1, 1)
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(y.transpose(1, 2).reshape(count, n, c))

    def _bias(self, table: Tensor, n: int) -> Tensor:
        return table[self.relative_position_index[:n, :n].reshape(-1)].reshape(n, n, -1).permute(2, 0, 1)


class Mlp(nn.Module):
    """Two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same."""
        return self.fc2(functional.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """One block; every second one shifts its windows by half."""

    def __init__(self, width: int, heads: int, gated: bool, shifted: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = WindowAttention(width, heads, gated), Mlp(width)
        self.shifted = shifted

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) -> the same."""
        size: Triple = (x.shape[1], x.shape[2], x.shape[3])
        window = _each(min, size, WINDOW)
        shift = _each(lambda n, w: w // 2 if self.shifted and n > w else 0, size, WINDOW)
        whole = _each(lambda n, w: -(-n // w) * w, size, window)
        missing = [n - have for n, have in zip(whole, size, strict=True)]
        y = functional.pad(self.norm1(x), (0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))
        y = windows(y.roll([-s for s in shift], dims=(1, 2, 3)), window)
        mask = None
        if any(shift):
            label = regions(whole, window, shift).to(x.device)
            mask = torch.where(label[:, None] == label[:, :, None], 0.0, -100.0)
        y = self.attn(y, fragment_distances(whole, window, shift).to(x.device), mask)
        y = unwindowed(y, window, whole).roll(shift, dims=(1, 2, 3))
        x = x + y[:, : size[0], : size[1], : size[2]]
        return x + self.mlp(self.norm2(x))


class Merging(nn.Module):
    """Halves height and width, doubles the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) -> (B, D, H / 2, W / 2, 2 C)."""
        x = functional.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        parts = [x[:, :, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(parts, dim=-1)))


class SwinStage(nn.Module):
    """Blocks of one resolution, and the way to the next."""

    def __init__(self, width: int, depth: int, heads: int, gated: bool, last: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SwinBlock(width, heads, gated, shifted=i % 2 == 1) for i in range(depth))
        self.downsample = None if last else Merging(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) -> half the height and width and twice the channels, but for the last stage."""
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class PatchEmbedding(nn.Module):
    """Patches of 2 frames x 4 x 4 px."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv3d(3, width, (2, 4, 4), (2, 4, 4)), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, h, w) -> (B, T / 2, h / 4, w / 4, width)."""
        return self.norm(self.proj(x).permute(0, 2, 3, 4, 1))


class Swin(nn.Module):
    """The technical branch."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(width)
        self.layers = nn.ModuleList(
            SwinStage(width * 2**i, depth, heads, gated, last=i == len(DEPTHS) - 1)
            for i, (depth, heads, gated) in enumerate(zip(DEPTHS, HEADS, GATED, strict=True))
        )
        self.norm = nn.LayerNorm(width * 2 ** (len(DEPTHS) - 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, h, w) -> (B, T / 2, h / 32, w / 32, 768)."""
        x = self.patch_embed(x)
        for stage in self.layers:
            x = stage(x)
        return self.norm(x)


class ChannelNorm(nn.LayerNorm):
    """Layer norm of (B, C, D, H, W) over C."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ConvBlock(nn.Module):
    """ConvNeXt's block with a depthwise convolution over `length` frames."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv3d(width, width, (length, 7, 7), padding=(length // 2, 3, 3), groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> the same."""
        y = self.pwconv2(functional.gelu(self.pwconv1(self.norm(self.dwconv(x).movedim(1, -1)))))
        return x + (self.gamma * y).movedim(-1, 1)


class ConvNeXt(nn.Module):
    """The aesthetic branch."""

    def __init__(self) -> None:
        super().__init__()
        w = CONV_WIDTHS
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv3d(3, w[0], (2, 4, 4), (2, 4, 4)), ChannelNorm(w[0]))]
        )
        for before, after in itertools.pairwise(w):
            conv = nn.Conv3d(before, after, (1, 2, 2), (1, 2, 2))
            self.downsample_layers.append(nn.Sequential(ChannelNorm(before), conv))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvBlock(width, CONV_LENGTHS[i % len(CONV_LENGTHS)]) for i in range(depth)))
            for depth, width in zip(CONV_DEPTHS, w, strict=True)
        )
        self.norm = nn.LayerNorm(w[-1], eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, h, w) -> (B, T / 2, h / 32, w / 32, 768)."""
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
        return self.norm(x.movedim(1, -1))


class Head(nn.Module):
    """A quality for each token."""

    def __init__(self, width: int = 768, hidden: int = 64) -> None:
        super().__init__()
        self.fc_hid, self.fc_last = nn.Conv3d(width, hidden, 1), nn.Conv3d(hidden, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) -> (B, 1, D, H, W)."""
        return self.fc_last(functional.gelu(self.fc_hid(x.movedim(-1, 1))))


class Dover(nn.Module):
    """Both branches."""

    def __init__(self) -> None:
        super().__init__()
        self.technical_backbone, self.aesthetic_backbone = Swin(), ConvNeXt()
        self.technical_head, self.aesthetic_head = Head(), Head()

    def forward(self, technical: Tensor, aesthetic: Tensor) -> tuple[float, float]:
        """Views (clips, 3, 32, 224, 224), ImageNet-normalised -> raw technical and aesthetic quality."""
        return (
            self.technical_head(self.technical_backbone(technical)).mean().item(),
            self.aesthetic_head(self.aesthetic_backbone(aesthetic)).mean().item(),
        )
