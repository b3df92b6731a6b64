"""What the report shows of sampling and editing: photographs of held-out people, nothing picked out."""

from __future__ import annotations

from typing import get_args

import numpy as np
import torch
from torch import Tensor

from lapcvae.editing.interpolation import rows_by_level
from lapcvae.editing.paint import Mode, coarse_level, edit
from lapcvae.editing.pictures import grid, sized
from lapcvae.editing.sampling import rows_of_levels
from lapcvae.models.cascade import Cascade

SHOWN = 8  # faces drawn a row
DARKENED = 0.45  # what the hair of the report's edit is multiplied by


def partial_samples(model: Cascade, face: Tensor, temperature: float, seed: int) -> np.ndarray:
    """A row a level: the photograph, its reconstruction, faces that keep levels k ... K of it. H W 3 uint8."""
    shown = torch.cat([face, model.reconstruct(face)[0].rebuilt])
    rows = rows_of_levels(model, face, SHOWN, seed, temperature)
    return grid([torch.cat([shown, row]) for row in rows] or [shown])


def edited(model: Cascade, face: Tensor, temperature: float, seed: int) -> np.ndarray:
    """Hair painted darker at level 2: how it is asked for, and faces with it, projected and direct. H W 3 uint8."""
    painted = darker_hair(coarse_level(model, face, 2))
    rows = []
    for mode in get_args(Mode):
        done = edit(model, face, painted, 2, SHOWN - 2, seed, mode, temperature=temperature)
        first = sized([face, done.reconstruction, painted, done.coarse], face.shape[-1])
        rows.append(torch.cat([first, done.faces]))
    return grid(rows)


def interpolated(model: Cascade, start: Tensor, end: Tensor) -> np.ndarray:
    """From one photograph to another: all levels, then each alone, between the photographs. H W 3 uint8."""
    return grid([torch.cat([start, row, end]) for row in rows_by_level(model, start, end, SHOWN)])


def darker_hair(level: Tensor) -> Tensor:
    """A level (1 3 s s) with its uppermost fifth painted darker, fading out over a tenth."""
    side = level.shape[-1]
    rows = (torch.arange(side, device=level.device) + 0.5) / side
    share = ((0.3 - rows) / 0.1).clamp(0, 1).view(1, 1, -1, 1)
    return level.clamp(0, 1) * (1 - share * (1 - DARKENED))
