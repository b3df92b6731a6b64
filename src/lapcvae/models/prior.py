"""What a prior network reads of the coarser level's latents."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LatentFeatures(nn.Module):
    """Latents of level k+1 -> features B width g g.

    shape: of z_{k+1}, (D,) or (C, h, h). parts: how many tensors of that shape come in, side by side on axis 1 (z, or
    a posterior's mean and log std).
    """

    def __init__(self, shape: tuple[int, ...], parts: int, width: int, grid: int) -> None:
        super().__init__()
        self.shape, self.grid = shape, grid
        self.read: nn.Module
        if len(shape) == 1:
            self.read = nn.Sequential(
                nn.Linear(parts * shape[0], width * grid**2), nn.Unflatten(1, (width, grid, grid))
            )
        else:
            self.read = nn.Conv2d(parts * shape[0], width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        h = self.read(latents)
        if h.shape[-1] != self.grid:
            h = F.interpolate(h.float(), size=(self.grid, self.grid), mode="nearest")
        return F.silu(self.mix(F.silu(h)))
