"""Contact sheets: rows of images, as H W 3 uint8 arrays."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lapcvae.models.cascade import run_level
from lapcvae.models.level import LevelCVAE
from lapcvae.models.noise import standard_normal
from lapcvae.pyramid.filters import PyramidKind, expand
from lapcvae.training.arrays import LevelArrays

COLUMNS = 10
# Bands are small and signed: shown around mid-grey, with this gain.
BAND_GAIN = 3.0


def as_band(x: Tensor) -> Tensor:
    """A signed band as a picture in [0, 1], mid-grey for 0."""
    return 0.5 + BAND_GAIN * x


def sheet(rows: list[Tensor], cell: int = 64, gap: int = 2) -> np.ndarray:
    """Rows of images (each B 3 S S on [0, 1]) as one picture; every image is brought to `cell` px, pixels repeated.

    Returns H W 3 uint8.
    """
    columns = max(len(row) for row in rows)
    pitch = cell + gap
    out = np.full((len(rows) * pitch + gap, columns * pitch + gap, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        sized = torch.nn.functional.interpolate(row.float().cpu(), size=(cell, cell), mode="nearest-exact")
        pixels = (sized.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for j, image in enumerate(pixels):
            y, x = gap + i * pitch, gap + j * pitch
            out[y : y + cell, x : x + cell] = image
    return out


@torch.no_grad()
def level_pictures(
    level: LevelCVAE, arrays: LevelArrays, rows: np.ndarray, kind: PyramidKind, seed: int
) -> dict[str, np.ndarray]:
    """Sheets of one level on held-out photographs.

    `reconstruction`: truth, condition, band, its reconstruction, image rebuilt (the middle ones below level K only).
    `samples`: z_k drawn as for new faces, four draws a photograph's coarser level (or four rows of draws at level K).
    """
    rows = rows[:COLUMNS]
    if len(rows) == 0:
        return {}
    x, coarser = arrays.gather(rows, np.zeros_like(rows))
    done = run_level(level, x, coarser, kind, None)
    shown = [x, done.rebuilt]
    if done.condition is not None:
        shown = [x, done.condition, as_band(done.target), as_band(done.mean), done.rebuilt]
    noise = torch.Generator(x.device)
    noise.manual_seed(seed)
    prior = level.prior(coarser, len(rows))
    condition = None if coarser is None else expand(coarser.image, kind)
    draws = []
    for _ in range(4):
        mean = level.decode(level.draw(prior, standard_normal(prior.mean.shape, noise, x.device, x.dtype)), condition)
        draws.append(mean if condition is None else condition + mean)
    return {"reconstruction": sheet(shown), "samples": sheet(draws)}
