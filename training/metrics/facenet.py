"""FaceNet's Inception-ResNet-v1 (Schroff et al. 2015, arXiv 1503.03832; Szegedy et al. 2016, arXiv 1602.07261).

Names and shapes of the parameters are those of 20180402-114759-vggface2.pt (timesler/facenet-pytorch,
models/inception_resnet_v1.py), so that it loads strictly. facenet-pytorch itself pins torch below 2.3 and
numpy below 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 8631  # people of VGGFace2; the classifier stands in the file and is not used
Size = int | tuple[int, int]


class Conv(nn.Module):
    """Convolution, batch norm with TensorFlow's epsilon, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Size, stride: int = 1, padding: Size = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h', w')."""
        return functional.relu(self.bn(self.conv(x)))


class Residual(nn.Module):
    """Parallel branches, joined by a 1 x 1 convolution, times `scale`, added to the input."""

    def __init__(self, width: int, branches: list[nn.Module], joined: int, scale: float, last: bool = False) -> None:
        super().__init__()
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)
        self.conv2d = nn.Conv2d(joined, width, 1)
        self.count, self.scale, self.last = len(branches), scale, last

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> the same; the last one has no ReLU."""
        y = torch.cat([self.get_submodule(f"branch{i}")(x) for i in range(self.count)], dim=1)
        y = x + self.scale * self.conv2d(y)
        return y if self.last else functional.relu(y)


class Reduction(nn.Module):
    """Parallel branches of stride 2 and a pooling, side by side."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c', h', w')."""
        return torch.cat([*(branch(x) for branch in self.children()), functional.max_pool2d(x, 3, 2)], dim=1)


def block35() -> Residual:
    """On the 17 x 17 grid of a 160 px face."""
    two = nn.Sequential(Conv(256, 32, 1), Conv(32, 32, 3, padding=1))
    three = nn.Sequential(Conv(256, 32, 1), Conv(32, 32, 3, padding=1), Conv(32, 32, 3, padding=1))
    return Residual(256, [Conv(256, 32, 1), two, three], 96, 0.17)


def block17() -> Residual:
    """On the 8 x 8 grid."""
    long = nn.Sequential(
        Conv(896, 128, 1), Conv(128, 128, (1, 7), padding=(0, 3)), Conv(128, 128, (7, 1), padding=(3, 0))
    )
    return Residual(896, [Conv(896, 128, 1), long], 256, 0.10)


def block8(scale: float = 0.20, last: bool = False) -> Residual:
    """On the 3 x 3 grid."""
    long = nn.Sequential(
        Conv(1792, 192, 1), Conv(192, 192, (1, 3), padding=(0, 1)), Conv(192, 192, (3, 1), padding=(1, 0))
    )
    return Residual(1792, [Conv(1792, 192, 1), long], 384, scale, last)


class InceptionResnetV1(nn.Module):
    """The network, in the form of the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a, self.conv2d_2a = Conv(3, 32, 3, 2), Conv(32, 32, 3)
        self.conv2d_2b = Conv(32, 64, 3, padding=1)
        self.conv2d_3b, self.conv2d_4a, self.conv2d_4b = Conv(64, 80, 1), Conv(80, 192, 3), Conv(192, 256, 3, 2)
        self.repeat_1 = nn.Sequential(*(block35() for _ in range(5)))
        self.mixed_6a = Reduction(
            [Conv(256, 384, 3, 2), nn.Sequential(Conv(256, 192, 1), Conv(192, 192, 3, padding=1), Conv(192, 256, 3, 2))]
        )
        self.repeat_2 = nn.Sequential(*(block17() for _ in range(10)))
        self.mixed_7a = Reduction(
            [
                nn.Sequential(Conv(896, 256, 1), Conv(256, 384, 3, 2)),
                nn.Sequential(Conv(896, 256, 1), Conv(256, 256, 3, 2)),
                nn.Sequential(Conv(896, 256, 1), Conv(256, 256, 3, padding=1), Conv(256, 256, 3, 2)),
            ]
        )
        self.repeat_3 = nn.Sequential(*(block8() for _ in range(5)))
        self.block8 = block8(scale=1.0, last=True)
        self.last_linear = nn.Linear(1792, 512, bias=False)
        self.last_bn = nn.BatchNorm1d(512, eps=0.001)
        self.logits = nn.Linear(512, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Faces (n, 3, 160, 160), (value - 127.5) / 128 -> unit embeddings (n, 512)."""
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(functional.max_pool2d(x, 3, 2))))
        x = self.repeat_2(self.mixed_6a(self.repeat_1(x)))
        x = self.block8(self.repeat_3(self.mixed_7a(x)))
        return functional.normalize(self.last_bn(self.last_linear(x.mean(dim=(2, 3)))))


def load_facenet(state: Mapping[str, Any]) -> InceptionResnetV1:
    """The network in eval mode. Raises ValueError when the state dict is not of its form."""
    model = InceptionResnetV1()
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"not a state dict of facenet-pytorch's VGGFace2 network: {error}") from error
    return model.eval().requires_grad_(False)
