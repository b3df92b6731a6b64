"""The Laplacian pyramid: x_1 = x, x_{k+1} = reduce(x_k), h_k = x_k - expand(x_{k+1}), h_K = x_K.

Levels are numbered 1 (finest, the full image) to K (coarsest). Lists of levels hold level 1 first.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lapcvae.pyramid.filters import PyramidKind, rebuild, reduce, split


@dataclass(frozen=True)
class PyramidConfig:
    """Which pyramid: its filters, and the side of its coarsest level in pixels."""

    kind: PyramidKind = "burt"
    coarsest: int = 16


def level_sides(side: int, coarsest: int) -> list[int]:
    """Sides in pixels from level 1 to level K, for example 64, 32, 16. Raises `ValueError` if halving misses."""
    sides = [side]
    while sides[-1] > coarsest:
        if sides[-1] % 2:
            raise ValueError(f"{side} px cannot be halved down to {coarsest} px: {sides[-1]} is odd")
        sides.append(sides[-1] // 2)
    if sides[-1] != coarsest or coarsest < 4:
        raise ValueError(
            f"{side} px cannot be halved down to {coarsest} px; the image side must be the coarsest side (at least 4) "
            "times a power of two"
        )
    return sides


def gaussian_pyramid(x: Tensor, levels: int, kind: PyramidKind = "burt") -> list[Tensor]:
    """[x_1 ... x_K] of images B C H W."""
    out = [x]
    for _ in range(levels - 1):
        out.append(reduce(out[-1], kind))
    return out


def build(x: Tensor, levels: int, kind: PyramidKind = "burt") -> list[Tensor]:
    """[h_1 ... h_K]: bands, then the coarsest image (Burt and Adelson 1983)."""
    bands = []
    for _ in range(levels - 1):
        x, band = split(x, kind)
        bands.append(band)
    return [*bands, x]


def collapse(bands: list[Tensor], kind: PyramidKind = "burt") -> Tensor:
    """Rebuild x from [h_1 ... h_K]: the inverse of `build` to float rounding."""
    x = bands[-1]
    for h in bands[-2::-1]:
        x = rebuild(h, x, kind)
    return x
