"""The networks of the published comparison (Dorta et al. 2017, after Larsen et al. 2016), as Larsen's table 1 has them.

Shapes: images B 3 S S, S = 8 times a power of two; at 64 px encoder and decoder have the published three steps, at
other sides as many as lead to 8 x 8, with more steps of 256 channels or fewer steps. The decoder ends in tanh, so
images are scaled to [-1, 1] (`half_scale`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GRID = 8
FEATURES = 1024
_CHANNELS = 256
_DOWN = (64, 128, 256)
_UP = (256, 128, 32)
_SEEN = (128, 256, 256)


class PublishedTrunk(nn.Module):
    """Image B 3 S S -> B 1024 1 1: 5x5 stride-2 convolutions with 64, 128, 256 channels, then fully connected."""

    def __init__(self, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        have = 3
        for step in range(_steps(side)):
            want = _DOWN[min(step, 2)]
            layers += [nn.Conv2d(have, want, 5, stride=2, padding=2), nn.BatchNorm2d(want), nn.ReLU()]
            have = want
        layers += [nn.Flatten(), nn.Linear(have * GRID**2, FEATURES), nn.BatchNorm1d(FEATURES), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Unflatten(1, (FEATURES, 1, 1)))
        self.out_channels = FEATURES

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class PublishedRenderer(nn.Module):
    """Features B 256 8 8 -> image B 3 S S in [-1, 1]: 5x5 stride-2 transposed convolutions, 256, 128, 32 channels."""

    def __init__(self, side: int) -> None:
        super().__init__()
        steps = _steps(side)
        channels = [*[_CHANNELS] * (steps - 3), *_UP[max(3 - steps, 0) :]]
        layers: list[nn.Module] = [nn.BatchNorm2d(_CHANNELS), nn.ReLU()]
        have = _CHANNELS
        for want in channels:
            layers += [
                nn.ConvTranspose2d(have, want, 5, stride=2, padding=2, output_padding=1),
                nn.BatchNorm2d(want),
                nn.ReLU(),
            ]
            have = want
        self.layers = nn.Sequential(*layers, nn.Conv2d(have, 3, 5, padding=2), nn.Tanh())

    def forward(self, features: Tensor, condition: Tensor | None) -> Tensor:
        """condition: always None; a plain VAE has no coarser level."""
        return self.layers(features)


class Discriminator(nn.Module):
    """Image B 3 S S in [-1, 1] -> (features that reconstructions are compared on, B 256 8 8; logit of being real, B).

    5x5 convolutions with 32, then 128, 256, 256 channels at stride 2; fully connected 512, then 1. The features are
    the last convolution's outputs before normalisation, as `Dis_l` of Larsen et al.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 5, padding=2), nn.ReLU()]
        have, steps = 32, _steps(side)
        for step in range(steps):
            want = _SEEN[min(step, 2)]
            layers.append(nn.Conv2d(have, want, 5, stride=2, padding=2))
            if step + 1 < steps:
                layers += [nn.BatchNorm2d(want), nn.ReLU()]
            have = want
        self.features = nn.Sequential(*layers)
        self.judge = nn.Sequential(
            nn.BatchNorm2d(have),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(have * GRID**2, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Linear(512, 1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return features, torch.squeeze(self.judge(features), 1)


def _steps(side: int) -> int:
    steps = (side // GRID).bit_length() - 1
    if steps < 1 or GRID * 2**steps != side:
        raise ValueError(f"`network: published` needs a side of {GRID} px times a power of two, not {side} px")
    return steps
