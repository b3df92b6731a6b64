"""The Laplacian pyramid: x_1 = x, x_{k+1} = reduce(x_k), h_k = x_k - expand(x_{k+1}), h_K = x_K.

Levels are numbered 1 (finest, the full image) to K (coarsest). Lists of levels hold level 1 first.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from lapcvae.pyramid.filters import PyramidKind, expand, reduce

# Bytes of finest images that are worked on at a time on a processor.
_BLOCK_BYTES = 3 << 19


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
    if not _in_blocks(x):
        return _build(x, levels, kind)
    sides = [(x.shape[-2] >> k, x.shape[-1] >> k) for k in range(levels)]
    out = [x.new_empty((*x.shape[:2], *side)) for side in sides]
    for block in _blocks(x):
        _build(x[block], levels, kind, [level[block] for level in out])
    return out


def _build(x: Tensor, levels: int, kind: PyramidKind, out: list[Tensor] | None = None) -> list[Tensor]:
    gaussian = gaussian_pyramid(x, levels, kind)
    if out is None:
        bands = [expand(-coarse, kind).add_(fine) for fine, coarse in pairwise(gaussian)]
        return [*bands, gaussian[-1]]
    for band, (fine, coarse) in zip(out, pairwise(gaussian), strict=False):
        torch.sub(fine, expand(coarse, kind), out=band)
    out[-1].copy_(gaussian[-1])
    return out


def collapse(bands: list[Tensor], kind: PyramidKind = "burt") -> Tensor:
    """Rebuild x from [h_1 ... h_K]: the inverse of `build` to float rounding."""
    if not _in_blocks(*bands):
        return _collapse(bands, kind)
    out = torch.empty_like(bands[0], memory_format=torch.contiguous_format)
    for block in _blocks(out):
        _collapse([band[block] for band in bands], kind, out[block])
    return out


def _collapse(bands: list[Tensor], kind: PyramidKind, out: Tensor | None = None) -> Tensor:
    x = bands[-1]
    for band in bands[-2:0:-1]:
        x = expand(x, kind).add_(band)
    if len(bands) == 1:
        return x if out is None else out.copy_(x)
    x = expand(x, kind)
    return x.add_(bands[0]) if out is None else torch.add(x, bands[0], out=out)


def _in_blocks(*levels: Tensor) -> bool:
    """Whether to go through a batch block by block: on a processor, where no gradient or compiler is to follow."""
    recorded = torch.is_grad_enabled() and any(level.requires_grad for level in levels)
    return levels[0].device.type == "cpu" and not recorded and not torch.compiler.is_compiling()


def _blocks(finest: Tensor) -> list[slice]:
    """Parts of a batch of images so small that what is made on the way stays in a core's cache."""
    count = len(finest)
    size = max(1, _BLOCK_BYTES * count // max(1, finest.numel() * finest.element_size()))
    return [slice(start, start + size) for start in range(0, count, size)]
