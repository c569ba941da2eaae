"""AMT-S, the small All-Pairs Multi-Field Transforms network for frame interpolation (Li et al., CVPR 2023,
arXiv 2304.09790).

Written from the paper; names and shapes of the parameters are those of the published amt-s.pth (MCG-NKU/AMT,
networks/AMT-S.py and networks/blocks/), so that it loads strictly. Flows are (x, y) in px of their own level.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = (20, 32, 44, 56)  # of the four pyramid levels, 1/2 to 1/16 of the picture
SKIP = 20  # channels of the side path of a residual block
FLOWS = 3  # flow fields that are combined at the end
RADIUS, LEVELS = 3, 4  # of the correlation lookup
TIME = 0.5  # of the frame between; amt-s.pth was trained for no other


def scaled(x: Tensor, factor: float) -> Tensor:
    """Bilinear resize."""
    return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def sample(x: Tensor, at: Tensor, padding: str = "zeros") -> Tensor:
    """x (n, c, h, w) at pixel positions (n, h', w', 2), bilinear."""
    height, width = x.shape[-2:]
    span = torch.tensor([width - 1, height - 1], device=x.device, dtype=x.dtype)
    return functional.grid_sample(x, 2 * at / span - 1, padding_mode=padding, align_corners=True)


def pixels(like: Tensor) -> Tensor:
    """(1, h, w, 2): each pixel's own position."""
    height, width = like.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=like.device), torch.arange(width, device=like.device), indexing="ij"
    )
    return torch.stack([x, y], dim=-1)[None].to(like.dtype)


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """x (n, c, h, w) looked up where flow (n, 2, h, w) points; the border goes on beyond the picture."""
    return sample(x, pixels(x) + flow.permute(0, 2, 3, 1), padding="border")


def conv_prelu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3 x 3."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.PReLU(outputs))


class SideResidual(nn.Module):
    """IFRNet's residual block: its last channels pass through convolutions of their own (arXiv 2205.14620)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv3 = conv_prelu(channels, channels), conv_prelu(channels, channels)
        self.conv2, self.conv4 = conv_prelu(SKIP, SKIP), conv_prelu(SKIP, SKIP)
        self.conv5 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.prelu = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, h, w) -> the same."""
        y = self._side(self.conv1(x), self.conv2)
        y = self._side(self.conv3(y), self.conv4)
        return self.prelu(x + self.conv5(y))

    def _side(self, x: Tensor, conv: nn.Module) -> Tensor:
        return torch.cat([x[:, :-SKIP], conv(x[:, -SKIP:])], dim=1)


class Pyramid(nn.Module):
    """Context features of one frame."""

    def __init__(self) -> None:
        super().__init__()
        for level, (inputs, outputs) in enumerate(zip((3, *CHANNELS), CHANNELS, strict=False), 1):
            convolutions = conv_prelu(inputs, outputs, 2), conv_prelu(outputs, outputs)
            self.add_module(f"pyramid{level}", nn.Sequential(*convolutions))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, 3, h, w) -> features at 1/2, 1/4, 1/8, 1/16."""
        features = []
        for part in self.children():
            x = part(x)
            features.append(x)
        return features


def decoder(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Doubles the resolution."""
    return nn.Sequential(conv_prelu(inputs, width), SideResidual(width), nn.ConvTranspose2d(width, outputs, 4, 2, 1))


class FirstDecoder(nn.Module):
    """From the coarsest features of both frames and the time between them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convblock = decoder(2 * inputs + 1, 2 * inputs, outputs + 4)

    def forward(self, f0: Tensor, f1: Tensor) -> tuple[Tensor, Tensor]:
        """Both flows (n, 4, 2h, 2w) and features (n, outputs, 2h, 2w)."""
        out = self.convblock(torch.cat([f0, f1, torch.full_like(f0[:, :1], TIME)], dim=1))
        return out[:, :4], out[:, 4:]


class NextDecoder(nn.Module):
    """From the features between, and those of the frames warped to them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convblock = decoder(3 * inputs + 4, 3 * inputs, outputs + 4)

    def forward(self, between: Tensor, f0: Tensor, f1: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
        """As FirstDecoder; flows (n, 4, h, w) are refined."""
        out = self.convblock(torch.cat([between, warp(f0, flows[:, :2]), warp(f1, flows[:, 2:]), flows], dim=1))
        return out[:, :4] + 2 * scaled(flows, 2), out[:, 4:]


class LastDecoder(nn.Module):
    """Several flow fields, masks and residual pictures at full resolution."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.convblock = decoder(3 * inputs + 4, 3 * inputs, 8 * FLOWS)

    def forward(self, between: Tensor, f0: Tensor, f1: Tensor, flows: Tensor) -> tuple[Tensor, ...]:
        """flow0, flow1 (n, 2 FLOWS, h, w); mask (n, FLOWS, h, w), 0..1; residual (n, 3 FLOWS, h, w)."""
        out = self.convblock(torch.cat([between, warp(f0, flows[:, :2]), warp(f1, flows[:, 2:]), flows], dim=1))
        flow0, flow1, mask, residual = out.split([2 * FLOWS, 2 * FLOWS, FLOWS, 3 * FLOWS], dim=1)
        coarse = 2 * scaled(flows, 2)
        flow0 = flow0 + coarse[:, :2].repeat(1, FLOWS, 1, 1)
        flow1 = flow1 + coarse[:, 2:].repeat(1, FLOWS, 1, 1)
        return flow0, flow1, mask.sigmoid(), residual


class Update(nn.Module):
    """Refines flows and features by the correlations that the flows point to."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        hidden, flow, corr, joint = 76, 20, 64, 68
        self.factor = factor  # of this level over the correlations' 1/8
        self.convc1 = nn.Conv2d(2 * LEVELS * (2 * RADIUS + 1) ** 2, corr, 1)
        self.convf1, self.convf2 = nn.Conv2d(4, 2 * flow, 7, padding=3), nn.Conv2d(2 * flow, flow, 3, padding=1)
        self.conv = nn.Conv2d(corr + flow, joint, 3, padding=1)
        self.gru = self._two(joint + 4 + channels, hidden, hidden)
        self.feat_head, self.flow_head = self._two(hidden, hidden, channels), self._two(hidden, hidden, 4)

    @staticmethod
    def _two(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, hidden, 3, padding=1), nn.LeakyReLU(0.1), nn.Conv2d(hidden, outputs, 3, padding=1)
        )

    def forward(self, features: Tensor, flows: Tensor, lookup: Correlations) -> tuple[Tensor, Tensor]:
        """Corrections of flows (n, 4, h, w) and features (n, channels, h, w)."""
        features = features if self.factor == 1 else scaled(features, 1 / self.factor)
        flows = flows if self.factor == 1 else scaled(flows, 1 / self.factor) / self.factor
        c = functional.leaky_relu(self.convc1(lookup(flows)), 0.1)
        f = functional.leaky_relu(self.convf2(functional.leaky_relu(self.convf1(flows), 0.1)), 0.1)
        joint = functional.leaky_relu(self.conv(torch.cat([c, f], dim=1)), 0.1)
        out = self.gru(torch.cat([joint, flows, features], dim=1))
        of_flows, of_features = self.flow_head(out), self.feat_head(out)
        if self.factor == 1:
            return of_flows, of_features
        return self.factor * scaled(of_flows, self.factor), scaled(of_features, self.factor)


class Correlations:
    """All-pairs correlations of both frames' features, looked up in both directions."""

    def __init__(self, f0: Tensor, f1: Tensor) -> None:
        n, d, h, w = f0.shape
        volume = torch.einsum("ncij,nckl->nijkl", f0, f1) / d**0.5
        self.forth = self._levels(volume.reshape(n * h * w, 1, h, w))
        self.back = self._levels(volume.permute(0, 3, 4, 1, 2).reshape(n * h * w, 1, h, w))

    @staticmethod
    def _levels(volume: Tensor) -> list[Tensor]:
        levels = [volume]
        for _ in range(LEVELS - 1):
            levels.append(functional.avg_pool2d(levels[-1], 2))
        return levels

    def __call__(self, flows: Tensor) -> Tensor:
        """flows (n, 4, h, w) from the time between to frame 0 and to frame 1 -> (n, 2 LEVELS (2 RADIUS + 1)^2, h, w).

        Motion is taken as linear: from one frame to the other it is the flow to the other over the half of the time.
        """
        at = pixels(flows)
        forth = at + flows[:, 2:].permute(0, 2, 3, 1) / TIME
        back = at + flows[:, :2].permute(0, 2, 3, 1) / (1 - TIME)
        return torch.cat([self._lookup(self.forth, forth), self._lookup(self.back, back)], dim=1)

    @staticmethod
    def _lookup(levels: list[Tensor], at: Tensor) -> Tensor:
        n, h, w, _ = at.shape
        steps = torch.arange(-RADIUS, RADIUS + 1, device=at.device, dtype=at.dtype)
        # As in RAFT, x changes along the window's first axis.
        window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)
        found = [
            sample(level, at.reshape(n * h * w, 1, 1, 2) / 2**i + window).reshape(n, h, w, -1)
            for i, level in enumerate(levels)
        ]
        return torch.cat(found, dim=-1).permute(0, 3, 1, 2)


class Bottleneck(nn.Module):
    """RAFT's, with instance norms, which have no parameters."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs // 4, 1)
        self.conv2 = nn.Conv2d(outputs // 4, outputs // 4, 3, stride, 1)
        self.conv3 = nn.Conv2d(outputs // 4, outputs, 1)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride)) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, h / stride, w / stride)."""
        y = x
        for conv in (self.conv1, self.conv2, self.conv3):
            y = functional.relu(functional.instance_norm(conv(y)))
        if self.downsample is not None:
            x = functional.instance_norm(self.downsample(x))
        return functional.relu(x + y)


class FeatureEncoder(nn.Module):
    """RAFT's small encoder: what the correlations are made of."""

    def __init__(self, outputs: int = 84) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, 2, 3)
        self.layer1 = nn.Sequential(Bottleneck(32, 32, 1), Bottleneck(32, 32, 1))
        self.layer2 = nn.Sequential(Bottleneck(32, 64, 2), Bottleneck(64, 64, 1))
        self.layer3 = nn.Sequential(Bottleneck(64, 96, 2), Bottleneck(96, 96, 1))
        self.conv2 = nn.Conv2d(96, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) -> (n, outputs, h / 8, w / 8)."""
        x = functional.relu(functional.instance_norm(self.conv1(x)))
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


class AmtS(nn.Module):
    """The network."""

    def __init__(self) -> None:
        super().__init__()
        c1, c2, c3, c4 = CHANNELS
        self.feat_encoder, self.encoder = FeatureEncoder(), Pyramid()
        self.decoder4, self.decoder3 = FirstDecoder(c4, c3), NextDecoder(c3, c2)
        self.decoder2, self.decoder1 = NextDecoder(c2, c1), LastDecoder(c1)
        self.update4, self.update3, self.update2 = Update(c3, 1), Update(c2, 2), Update(c1, 4)
        self.comb_block = nn.Sequential(
            nn.Conv2d(3 * FLOWS, 6 * FLOWS, 3, 1, 1), nn.PReLU(6 * FLOWS), nn.Conv2d(6 * FLOWS, 3, 3, 1, 1)
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two pictures (n, 3, h, w), 0..1, sides multiples of 16 from 128 -> the one halfway between them, 0..1."""
        mean = torch.cat([first, second], dim=2).mean(dim=(1, 2, 3), keepdim=True)
        first, second = first - mean, second - mean
        correlations = Correlations(*self.feat_encoder(torch.cat([first, second])).chunk(2))
        of_first, of_second = self.encoder(first), self.encoder(second)

        flows, between = self.decoder4(of_first[3], of_second[3])
        flows, between = self._updated(self.update4, flows, between, correlations)
        flows, between = self.decoder3(between, of_first[2], of_second[2], flows)
        flows, between = self._updated(self.update3, flows, between, correlations)
        flows, between = self.decoder2(between, of_first[1], of_second[1], flows)
        flows, between = self._updated(self.update2, flows, between, correlations)
        flow0, flow1, mask, residual = self.decoder1(between, of_first[0], of_second[0], flows)

        candidates = []
        for i in range(FLOWS):
            two, three, m = slice(2 * i, 2 * i + 2), slice(3 * i, 3 * i + 3), mask[:, i : i + 1]
            blended = m * warp(first, flow0[:, two]) + (1 - m) * warp(second, flow1[:, two])
            candidates.append(blended + mean + residual[:, three])
        made = torch.stack(candidates).mean(dim=0) + self.comb_block(torch.cat(candidates, dim=1))
        return made.clamp(0, 1)

    @staticmethod
    def _updated(update: Update, flows: Tensor, between: Tensor, lookup: Correlations) -> tuple[Tensor, Tensor]:
        of_flows, of_between = update(between, flows, lookup)
        return flows + of_flows, between + of_between
