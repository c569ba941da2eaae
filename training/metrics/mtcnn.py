"""Face detection by MTCNN (Zhang et al. 2016, arXiv 1604.02878), as FastComposer's evaluation uses it.

Names and shapes of the parameters are those of pnet.pt, rnet.pt and onet.pt (timesler/facenet-pytorch,
models/mtcnn.py), so that they load strictly; the steps give that library's boxes. Landmarks are not used here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import nms

MIN_FACE = 20  # px
FACTOR = 0.709  # between the scales of the pyramid
THRESHOLDS = (0.6, 0.7, 0.7)  # of the three networks
CELL, STRIDE = 12, 2  # of PNet
BATCH = 512  # candidates at once


class PNet(nn.Module):
    """Proposes: a fully convolutional look at cells of 12 x 12."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, h, w), -1..1 -> corrections (1, 4, h', w'), probability (1, h', w')."""
        x = functional.max_pool2d(self.prelu1(self.conv1(x)), 2, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_2(x), self.conv4_1(x).softmax(1)[:, 1]


class RNet(nn.Module):
    """Refines candidates of 24 x 24."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, 24, 24), -1..1 -> corrections (n, 4), probability (n,)."""
        x = functional.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(x)).permute(0, 3, 2, 1).flatten(1)  # the weights come from a library that is x first
        x = self.prelu4(self.dense4(x))
        return self.dense5_2(x), self.dense5_1(x).softmax(1)[:, 1]


class ONet(nn.Module):
    """Decides on candidates of 48 x 48."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, 48, 48), -1..1 -> corrections (n, 4), probability (n,). dense6_3 gives landmarks, unused."""
        x = functional.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu3(self.conv3(x)), 2, 2, ceil_mode=True)
        x = self.prelu4(self.conv4(x)).permute(0, 3, 2, 1).flatten(1)
        x = self.prelu5(self.dense5(x))
        return self.dense6_2(x), self.dense6_1(x).softmax(1)[:, 1]


class Mtcnn:
    """The cascade of the three networks."""

    def __init__(
        self, pnet: Mapping[str, Any], rnet: Mapping[str, Any], onet: Mapping[str, Any], device: str = "cpu"
    ) -> None:
        """State dicts of the three files. Raises ValueError for one that is not of its network's form."""
        self.device = device
        self.pnet, self.rnet, self.onet = (
            self._load(network, state) for network, state in ((PNet(), pnet), (RNet(), rnet), (ONet(), onet))
        )

    def _load(self, network: nn.Module, state: Mapping[str, Any]) -> nn.Module:
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            raise ValueError(f"not a state dict of MTCNN's {type(network).__name__}: {error}") from error
        return network.eval().requires_grad_(False).to(self.device)

    @torch.inference_mode()
    def detect(self, image: np.ndarray) -> np.ndarray:
        """Faces on a uint8 RGB image (h, w, 3): float32 (n, 5), x0, y0, x1, y1 in px and probability, surest first."""
        x = torch.from_numpy(image.copy()).to(self.device).permute(2, 0, 1)[None].float()
        boxes = square(self._propose(x))
        boxes, corrections = self._judge(x, boxes, self.rnet, 24, THRESHOLDS[1])
        kept = nms(boxes[:, :4], boxes[:, 4], 0.7)
        boxes = square(corrected(boxes[kept], corrections[kept]))
        boxes, corrections = self._judge(x, boxes, self.onet, 48, THRESHOLDS[2])
        return suppressed(corrected(boxes, corrections).cpu().numpy())

    def _propose(self, x: Tensor) -> Tensor:
        """Candidates (n, 5) of all scales."""
        height, width = x.shape[-2:]
        scale = CELL / MIN_FACE
        found = [x.new_zeros(0, 9)]
        while min(height, width) * scale >= CELL:
            small = functional.interpolate(x, (int(height * scale + 1), int(width * scale + 1)), mode="area")
            corrections, probability = self.pnet(normal(small))
            at = (probability[0] >= THRESHOLDS[0]).nonzero()
            y, score = at[:, 0], probability[0][at[:, 0], at[:, 1]]
            first = at.flip(1).float() * STRIDE
            cells = torch.cat([((first + 1) / scale).floor(), ((first + CELL) / scale).floor()], dim=1)
            boxes = torch.cat([cells, score[:, None], corrections[0][:, y, at[:, 1]].T], dim=1)
            found.append(boxes[nms(boxes[:, :4], boxes[:, 4], 0.5)])
            scale *= FACTOR
        boxes = torch.cat(found)
        boxes = boxes[nms(boxes[:, :4], boxes[:, 4], 0.7)]
        sides = (boxes[:, 2:4] - boxes[:, :2]).repeat(1, 2)
        return torch.cat([boxes[:, :4] + boxes[:, 5:] * sides, boxes[:, 4:5]], dim=1)

    def _judge(self, x: Tensor, boxes: Tensor, network: nn.Module, side: int, least: float) -> tuple[Tensor, Tensor]:
        """The candidates (n, 5) that pass the network with their new probability, and their corrections (n, 4)."""
        height, width = x.shape[-2:]
        edges = boxes[:, :4].trunc().int()
        x0, y0 = (edges[:, i].clamp(min=1) - 1 for i in (0, 1))
        x1, y1 = edges[:, 2].clamp(max=width), edges[:, 3].clamp(max=height)
        inside = (x1 > x0) & (y1 > y0)
        corners = torch.stack([x0, y0, x1, y1], dim=1)[inside].tolist()
        if not corners:
            return x.new_zeros(0, 5), x.new_zeros(0, 4)
        cut = [functional.interpolate(x[..., b:d, a:c], (side, side), mode="area") for a, b, c, d in corners]
        parts = [network(normal(part)) for part in torch.cat(cut).split(BATCH)]
        corrections, probability = (torch.cat(values) for values in zip(*parts, strict=True))
        passed = probability > least
        return torch.cat([boxes[inside, :4], probability[:, None]], dim=1)[passed], corrections[passed]


def normal(x: Tensor) -> Tensor:
    """0..255 -> about -1..1."""
    return (x - 127.5) * 0.0078125


def corrected(boxes: Tensor, corrections: Tensor) -> Tensor:
    """Boxes (n, 5) moved by corrections (n, 4) in units of their sides."""
    sides = (boxes[:, 2:4] - boxes[:, :2] + 1).repeat(1, 2)
    return torch.cat([boxes[:, :4] + corrections * sides, boxes[:, 4:]], dim=1)


def square(boxes: Tensor) -> Tensor:
    """Boxes (n, 5) grown to squares about their centres."""
    sides = boxes[:, 2:4] - boxes[:, :2]
    side = sides.amax(dim=1, keepdim=True)
    first = boxes[:, :2] + sides * 0.5 - side * 0.5
    return torch.cat([first, first + side, boxes[:, 4:]], dim=1)


def suppressed(boxes: np.ndarray, most: float = 0.7) -> np.ndarray:
    """Boxes (n, 5) without those of which another, surer one covers more than `most` of the smaller of the two."""
    areas = np.prod(boxes[:, 2:4] - boxes[:, :2] + 1, axis=1)
    order = np.argsort(boxes[:, 4])[::-1]
    kept = []
    while len(order):
        best, others = order[0], order[1:]
        kept.append(best)
        first = np.maximum(boxes[best, :2], boxes[others, :2])
        last = np.minimum(boxes[best, 2:4], boxes[others, 2:4])
        shared = np.prod(np.maximum(0.0, last - first + 1), axis=1)
        order = others[shared / np.minimum(areas[best], areas[others]) <= most]
    return boxes[kept]
