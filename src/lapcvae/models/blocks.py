"""Networks from images to latents and back, in two styles.

Shapes: images B C S S; a `Trunk` turns an image into features B F g g; a `Renderer` turns features back into an
image. `plain` follows the networks of 2017 (5x5 strided convolutions, batch norm, ReLU); `residual` works on patches
at low resolution, which is several times cheaper for the same field of view.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with groups of 16 channels where that divides."""
    return nn.GroupNorm(max(channels // 16, 1) if channels % 16 == 0 else 1, channels)


class ResidualBlock(nn.Module):
    """x + f(x), f two 3x3 convolutions; the second starts at zero, so a block starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(channels), group_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


def residual_stack(channels: int, blocks: int) -> nn.Sequential:
    """`blocks` residual blocks."""
    return nn.Sequential(*[ResidualBlock(channels) for _ in range(blocks)])


def patch_of(side: int) -> int:
    """Side of the patches a residual network reads: features are at most 16 x 16 up to 64 px, then a quarter.

    For sides that are no power of two, the nearest smaller patch that divides.
    """
    largest = max(2, side // 16) if side <= 64 else 4
    return max(patch for patch in range(1, largest + 1) if side % patch == 0)


def reachable_grid(side: int, largest: int) -> int:
    """Side of the first feature map of at most `largest` that halving `side` leads to, or of the smallest there is."""
    while side > largest and side % 2 == 0:
        side //= 2
    return side


class ResidualTrunk(nn.Module):
    """Image B C S S -> features B width g g."""

    def __init__(self, channels: int, side: int, grid: int, width: int, blocks: int) -> None:
        super().__init__()
        patch = patch_of(side)
        layers: list[nn.Module] = [nn.PixelUnshuffle(patch), nn.Conv2d(channels * patch**2, width, 3, padding=1)]
        size = side // patch
        layers.append(residual_stack(width, blocks))
        while size > grid:
            layers += [nn.Conv2d(width, width, 4, stride=2, padding=1), residual_stack(width, blocks)]
            size //= 2
        _same_grid(size, grid, side)
        self.layers = nn.Sequential(*layers, group_norm(width), nn.SiLU())
        self.out_channels = width

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ResidualRenderer(nn.Module):
    """Features B width g g (and the condition B 3 S S, where there is one) -> image B 3 S S."""

    def __init__(self, side: int, grid: int, width: int, blocks: int, conditioned: bool) -> None:
        super().__init__()
        patch = patch_of(side)
        up: list[nn.Module] = [residual_stack(width, blocks)]
        size = grid
        while size < side // patch:
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1), residual_stack(width, blocks)]
            size *= 2
        _same_grid(size, side // patch, side)
        self.up = nn.Sequential(*up)
        self.condition = (
            nn.Sequential(nn.PixelUnshuffle(patch), nn.Conv2d(3 * patch**2, width, 3, padding=1))
            if conditioned
            else None
        )
        self.merge = residual_stack(width, blocks)
        self.out = nn.Sequential(
            group_norm(width), nn.SiLU(), nn.Conv2d(width, 8 * patch**2, 3, padding=1), nn.PixelShuffle(patch)
        )
        # Patches are smoothed over their borders at full resolution.
        self.smooth = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, features: Tensor, condition: Tensor | None) -> Tensor:
        h = self.up(features)
        if self.condition is not None and condition is not None:
            h = h + self.condition(condition)
        return self.smooth(F.silu(self.out(self.merge(h))))


class PlainTrunk(nn.Module):
    """Image B C S S -> features B F g g by 5x5 stride-2 convolutions, channels doubling up to 4 x width."""

    def __init__(self, channels: int, side: int, grid: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size, have, want = side, channels, width
        while size > grid:
            layers += [nn.Conv2d(have, want, 5, stride=2, padding=2), nn.BatchNorm2d(want), nn.ReLU()]
            size, have, want = size // 2, want, min(want * 2, 4 * width)
        _same_grid(size, grid, side)
        self.layers = nn.Sequential(*layers)
        self.out_channels = have

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class PlainRenderer(nn.Module):
    """Features B F g g (and the condition B 3 S S) -> image B 3 S S by 5x5 stride-2 transposed convolutions."""

    def __init__(self, side: int, grid: int, features: int, width: int, conditioned: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size, have = grid, features
        while size < side:
            want = max(have // 2, width)
            layers += [
                nn.ConvTranspose2d(have, want, 5, stride=2, padding=2, output_padding=1),
                nn.BatchNorm2d(want),
                nn.ReLU(),
            ]
            size, have = size * 2, want
        _same_grid(size, side, side)
        self.up = nn.Sequential(*layers)
        self.out = nn.Conv2d(have + (3 if conditioned else 0), 3, 5, padding=2)

    def forward(self, features: Tensor, condition: Tensor | None) -> Tensor:
        h = self.up(features)
        if condition is not None:
            h = concatenate(h, condition)
        return self.out(h)


def concatenate(*images: Tensor) -> Tensor:
    """Images side by side on the channel axis."""
    return torch.cat([image.to(images[0].dtype) for image in images], 1)


def _same_grid(size: int, grid: int, side: int) -> None:
    if size != grid:
        raise ValueError(f"a {side} px level cannot be brought to a {grid} x {grid} grid by halving")
