"""Whether a model repeats its training photographs: the nearest of them to each picture it draws.

Distances are root mean squared differences on the 0-255 scale at `SIDE_PX`, to every training photograph and its mirror
image. Held-out people tell what distance means nothing: samples that are much nearer to a training photograph than
held-out people are have been learnt by heart. Models blur, and blur alone brings pictures nearer, so reconstructions of
held-out people stand beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lapcvae.data.batches import PackedImages
from lapcvae.pyramid.filters import reduce

SIDE_PX = 32
_CHUNK = 256


@dataclass(frozen=True)
class Nearest:
    """Of each picture: `distance` (0-255) to its nearest training photograph, and that one's `row` and `flip`."""

    distance: np.ndarray
    row: np.ndarray
    flip: np.ndarray


def nearest(pictures: Tensor, photographs: PackedImages, training: np.ndarray) -> Nearest:
    """The nearest of the `training` rows, as they are or mirrored, to each of `pictures` (B 3 S S on [0, 1])."""
    wanted = _small(pictures)
    best = torch.full((len(pictures),), torch.inf, dtype=torch.float64, device=pictures.device)
    row = torch.zeros(len(pictures), dtype=torch.int64, device=pictures.device)
    flip = torch.zeros_like(row)
    for start in range(0, len(training), _CHUNK):
        part = training[start : start + _CHUNK]
        for side in (0, 1):
            known = _small(photographs.gather(part, np.full_like(part, side)))
            distance, index = torch.cdist(wanted, known, compute_mode="use_mm_for_euclid_dist").min(1)
            closer = distance < best
            best = torch.where(closer, distance, best)
            row = torch.where(closer, torch.from_numpy(part).to(index.device)[index], row)
            flip = torch.where(closer, torch.full_like(flip, side), flip)
    scale = 255 / np.sqrt(wanted.shape[1])
    return Nearest(best.cpu().numpy() * scale, row.cpu().numpy(), flip.cpu().numpy())


def summary(distances: dict[str, np.ndarray]) -> dict[str, float]:
    """Median distance of `samples`, `reconstructions` and `held_out`, and the share of samples that are suspicious.

    `repeated_share`: of samples nearer to a training photograph than all but one in a hundred of the reconstructions
    of held-out people are.
    """
    limit = np.quantile(distances["reconstructions"], 0.01)
    return {
        **{f"{name}_median": float(np.median(values)) for name, values in distances.items()},
        "repeated_share": float(np.mean(distances["samples"] < limit)),
    }


def _small(x: Tensor) -> Tensor:
    x = x.clamp(0, 1).double()
    while x.shape[-1] > SIDE_PX and x.shape[-1] % 2 == 0:
        x = reduce(x)
    return x.flatten(1)
