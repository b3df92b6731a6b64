"""Orthonormal coordinates of a Haar pyramid, in which the per-level sum is a likelihood of the image itself.

With `kind: haar`, x_{k+1} holds the means of 2 x 2 blocks and expand repeats them, so x_k - expand(x_{k+1}) lies in the
three detail directions of each block: 3/4 of its numbers say all. Written in an orthonormal basis of those directions,
and scaled by 2^(k-1), the bands of all levels and the coarsest image (Haar 1910; Mallat 1989) are together a rotation
of the image: as many numbers as pixels, volume unchanged, so densities need no Jacobian and add up.

The scale is left to whoever sums over levels (`gain`): images and bands of every level stay on the [0, 1] scale.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lapcvae.pyramid.filters import expand, reduce


def gain(k: int) -> float:
    """What level k's numbers are multiplied by to be coordinates of the orthonormal transform of x_1."""
    return 2.0 ** (k - 1)


def details(band: Tensor) -> Tensor:
    """The detail coordinates of 2 x 2 blocks, B C H W -> B 3C H/2 W/2; what a block has of a mean is dropped."""
    a, b = band[..., ::2, ::2], band[..., ::2, 1::2]
    c, d = band[..., 1::2, ::2], band[..., 1::2, 1::2]
    return torch.cat([a - b + c - d, a + b - c - d, a - b - c + d], 1) / 2


def from_details(coordinates: Tensor) -> Tensor:
    """The band with these detail coordinates, B 3C h w -> B C 2h 2w: the transpose, and inverse, of `details`."""
    x, y, xy = coordinates.chunk(3, 1)
    top = torch.stack([x + y + xy, -x + y - xy], -1).flatten(-2)
    bottom = torch.stack([x - y - xy, -x - y + xy], -1).flatten(-2)
    return torch.stack([top, bottom], -2).flatten(-3, -2) / 2


def without_means(band: Tensor) -> Tensor:
    """The nearest band whose 2 x 2 blocks have mean 0, B C H W."""
    return band - expand(reduce(band, "haar"), "haar")
