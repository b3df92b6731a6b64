"""Where the error sits: level by level, cumulatively, and band by band of the final image. 0-255 scale."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lapcvae.models.cascade import LevelPass
from lapcvae.pyramid.filters import PyramidKind, expand
from lapcvae.pyramid.laplacian import build, gaussian_pyramid


@torch.no_grad()
def squared_errors(x: Tensor, passes: list[LevelPass], kind: PyramidKind) -> dict[str, np.ndarray]:
    """Mean squared errors of a batch, each K x B, level 1 first.

    level: x~_k against x_k at its own size. cumulative: x~_k expanded to full size against x, what stopping at level
    k would cost. band: the Laplacian pyramid of the final error x - x~_1, which band the error left is in.
    """
    depth = len(passes)
    truth = gaussian_pyramid(x, depth, kind)
    level, cumulative = [], []
    for k, (done, target) in enumerate(zip(passes, truth, strict=True), 1):
        level.append(_mse(done.rebuilt, target))
        full = done.rebuilt
        for _ in range(k - 1):
            full = expand(full, kind)
        cumulative.append(_mse(full, x))
    bands = [_mse(band, torch.zeros_like(band)) for band in build(x - passes[0].rebuilt, depth, kind)]
    return {"level": np.stack(level), "cumulative": np.stack(cumulative), "band": np.stack(bands)}


def _mse(a: Tensor, b: Tensor) -> np.ndarray:
    return ((a.double() - b.double()) * 255).square().mean((1, 2, 3)).cpu().numpy()
