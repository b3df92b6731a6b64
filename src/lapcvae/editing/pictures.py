"""Pictures to files: PNG, whole or not at all, the same bytes for the same pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lapcvae.evaluation.grids import sheet
from lapcvae.io.atomic import atomic_path

CELL_PX = 96  # least side of a face in a sheet
PAINTABLE_PX = 256  # least side of a level's picture that is to be painted on


def pixels(image: Tensor) -> np.ndarray:
    """One image 1 3 S S, or 1 1 S S, on [0, 1] as S S 3 uint8."""
    one = image[0].expand(3, -1, -1).clamp(0, 1)
    values: np.ndarray = (one * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return values


def enlarged(image: Tensor) -> Tensor:
    """Pixels repeated until a side has `PAINTABLE_PX` or more."""
    times = -(-PAINTABLE_PX // image.shape[-1])
    return torch.repeat_interleave(torch.repeat_interleave(image, times, -1), times, -2)


def sized(images: list[Tensor], side: int) -> Tensor:
    """Square images of several sizes (1 3 s s each) as one row B 3 side side, pixels repeated."""
    return torch.cat([F.interpolate(image.float(), size=(side, side), mode="nearest-exact") for image in images])


def save(picture: np.ndarray, path: Path) -> None:
    """Write H W 3 uint8 as PNG. Raises `StorageError`."""
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, "PNG", optimize=True)


def grid(rows: list[Tensor]) -> np.ndarray:
    """Rows of faces as one picture, each face at its own size or enlarged to `CELL_PX`. H W 3 uint8."""
    side = max(int(row.shape[-1]) for row in rows)
    return sheet(rows, cell=max(side, CELL_PX))
