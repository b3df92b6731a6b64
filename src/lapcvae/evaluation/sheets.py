"""Contact sheets that compare whole models on held-out photographs."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lapcvae.data.batches import PackedImages
from lapcvae.evaluation.grids import COLUMNS, as_band, sheet
from lapcvae.evaluation.neighbours import Nearest
from lapcvae.models.cascade import Cascade
from lapcvae.pyramid.filters import expand
from lapcvae.pyramid.laplacian import build


@torch.no_grad()
def comparison(models: dict[str, Cascade], photographs: PackedImages, rows: np.ndarray) -> np.ndarray:
    """Truth, then one row of posterior-mean reconstructions a model. H W 3 uint8."""
    part = rows[:COLUMNS]
    x = photographs.gather(part, np.zeros_like(part))
    return sheet([x, *(model.reconstruct(x)[0].rebuilt for model in models.values())], cell=96)


@torch.no_grad()
def coarse_to_fine(model: Cascade, photographs: PackedImages, rows: np.ndarray) -> np.ndarray:
    """How a face is put together: truth; then a level, from the coarsest: its rebuilt image, true and modelled band."""
    part = rows[:COLUMNS]
    x = photographs.gather(part, np.zeros_like(part))
    passes = model.reconstruct(x)
    bands = build(x, model.depth, model.kind)
    shown = [x]
    for k in range(model.depth, 0, -1):
        if k < model.depth:
            shown += [as_band(bands[k - 1]), as_band(passes[k - 1].mean)]
        full = passes[k - 1].rebuilt
        for _ in range(k - 1):
            full = expand(full, model.kind)
        shown.append(full)
    return sheet(shown, cell=96)


@torch.no_grad()
def samples(model: Cascade, count: int, finer_temperature: float, seed: int) -> np.ndarray:
    """`count` faces drawn from the prior, level K at temperature 1, finer ones as given, in rows. H W 3 uint8."""
    noise = torch.Generator().manual_seed(seed)
    drawn = model.sample(count, noise, finer_temperature=finer_temperature).images[0]
    return sheet(list(drawn.split(COLUMNS)), cell=96)


@torch.no_grad()
def nearest(drawn: Tensor, neighbours: Nearest, photographs: PackedImages) -> np.ndarray:
    """The samples (n 3 S S) that are nearest to a training photograph, and these photographs below. H W 3 uint8."""
    order = np.argsort(neighbours.distance, kind="stable")[:COLUMNS]
    known = photographs.gather(neighbours.row[order], neighbours.flip[order])
    return sheet([drawn[torch.from_numpy(order).to(drawn.device)], known], cell=96)
