"""phi of Eq. 4, the face embedding: insightface's ArcFace from its ONNX file, or a small one trained on the spot."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.align import SIZE, warp

SMALL_WIDTHS = (16, 32, 64)
SMALL_DIM = 64
SMALL_SIZE = 56


class _Block(nn.Module):
    """Residual unit of the improved ResNet that ArcFace (arXiv 1801.07698) uses: BN-conv-BN-PReLU-conv-BN."""

    def __init__(self, inward: int, outward: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inward),
            nn.Conv2d(inward, outward, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outward),
            nn.PReLU(outward),
            nn.Conv2d(outward, outward, 3, 2, 1, bias=False),
            nn.BatchNorm2d(outward),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inward, outward, 1, 2, bias=False), nn.BatchNorm2d(outward))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class SmallIResNet(nn.Module):
    """A small iresnet: (B, 3, size, size), -1..1 -> (B, dim)."""

    def __init__(self, widths: tuple[int, ...], dim: int, size: int) -> None:
        super().__init__()
        side = size
        for _ in widths:
            side = (side + 1) // 2
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.PReLU(widths[0])
        )
        self.blocks = nn.Sequential(*(_Block(a, b) for a, b in zip((widths[0], *widths[:-1]), widths, strict=True)))
        self.head = nn.Sequential(
            nn.BatchNorm2d(widths[-1]), nn.Flatten(), nn.Linear(widths[-1] * side**2, dim), nn.BatchNorm1d(dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)))


class ArcFace(nn.Module):
    """Alignment and embedding, frozen, in eval mode and float32, differentiable in the images."""

    def __init__(self, network: nn.Module, dim: int, size: int) -> None:
        super().__init__()
        self.network = network.float().eval().requires_grad_(False)
        self.dim = dim
        self.size = size

    def train(self, mode: bool = True) -> ArcFace:
        """Stays in eval mode: batch statistics would make phi depend on the batch."""
        return super().train(False)

    def forward(self, images: Tensor, matrix: Tensor) -> Tensor:
        """Frames (B, 3, H, W), -1..1, and their warps (B, 2, 3) to the template -> embeddings (B, dim)."""
        with torch.autocast(images.device.type, enabled=False):
            return self.network(warp(images.float(), matrix, self.size))


def load_onnx(path: Path) -> ArcFace:
    """ArcFace from an ONNX file with one input (n, 3, 112, 112), RGB in -1..1, as insightface publishes them.

    Raises ValueError when the file is no such model.
    """
    import onnx
    from google.protobuf.message import DecodeError
    from onnx2torch import convert

    try:
        network = convert(onnx.load(str(path)))
    except (DecodeError, NotImplementedError) as error:
        raise ValueError(f"{path}: is no ONNX model that can be used: {error}") from error
    try:
        with torch.no_grad():
            out = network.eval()(torch.zeros(1, 3, SIZE, SIZE))
    except RuntimeError as error:
        raise ValueError(f"{path}: does not take a face of {SIZE} x {SIZE}: {error}") from error
    if out.ndim != 2:
        raise ValueError(f"{path}: gives an output of shape {tuple(out.shape)}, not an embedding (n, d)")
    return ArcFace(network, out.shape[1], SIZE)


def small_arcface() -> ArcFace:
    """An untrained small one."""
    return ArcFace(SmallIResNet(SMALL_WIDTHS, SMALL_DIM, SMALL_SIZE), SMALL_DIM, SMALL_SIZE)


def margin_loss(
    embeddings: Tensor, centres: Tensor, labels: Tensor, scale: float = 16.0, margin: float = 0.3
) -> Tensor:
    """ArcFace's additive angular margin: cross-entropy over s cos(theta + m) for the true identity, s cos(theta) else.

    embeddings (B, d), centres (I, d), labels (B,) -> a scalar.
    """
    cosine = functional.normalize(embeddings) @ functional.normalize(centres).T
    cosine = cosine.clamp(-1 + 1e-6, 1 - 1e-6)
    true = functional.one_hot(labels, len(centres)).bool()
    # Beyond pi - m the cosine would rise again; there the penalty is a constant instead.
    shifted = torch.where(
        cosine > math.cos(math.pi - margin), torch.cos(torch.acos(cosine) + margin), cosine - margin * math.sin(margin)
    )
    return functional.cross_entropy(scale * torch.where(true, shifted, cosine), labels)


def train_small(batches: Iterator[tuple[Tensor, Tensor, Tensor]], identities: int, steps: int, seed: int) -> ArcFace:
    """Train a small ArcFace on (frames (B, 3, H, W), warps (B, 2, 3), labels (B,)).

    Raises ValueError with fewer than two identities.
    """
    if identities < 2:
        raise ValueError(f"arcface=train needs clips of two identities or more, the manifest has {identities}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SmallIResNet(SMALL_WIDTHS, SMALL_DIM, SMALL_SIZE)
        centres = nn.Parameter(torch.randn(identities, SMALL_DIM))
    optimizer = torch.optim.AdamW([*network.parameters(), centres], lr=2e-3)
    network.train()
    for _ in range(steps):
        frames, matrices, labels = next(batches)
        loss = margin_loss(network(warp(frames, matrices, SMALL_SIZE)), centres, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return ArcFace(network, SMALL_DIM, SMALL_SIZE)
