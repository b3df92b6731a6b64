"""From one photograph's latents to another's, all levels at once and level by level."""

from __future__ import annotations

import torch
from torch import Tensor

from lapcvae.editing.sampling import seeded
from lapcvae.errors import ConfigError
from lapcvae.models.cascade import Cascade, latents


def interpolate(model: Cascade, start: Tensor, end: Tensor, steps: int, levels: list[int] | None = None) -> Tensor:
    """`steps` faces (steps 3 S S) whose latents go from `start`'s posterior mean to `end`'s; both are 1 3 S S.

    z_k = (1 - t) z_k(start) + t z_k(end) with t = 0 ... 1 at the given levels (all where None); other levels stay at
    `start`. Nothing is drawn. The first face is the reconstruction of `start`, and, where all levels move, the last
    one that of `end`. Raises `ConfigError` for fewer than two steps or a level the model does not have.
    """
    moving = list(range(1, model.depth + 1)) if levels is None else levels
    if steps < 2 or not set(moving) <= set(range(1, model.depth + 1)):
        raise ConfigError(f"{steps} steps at levels {moving}: two steps at least, and levels 1 to {model.depth}")
    first, last = latents(model.reconstruct(start)), latents(model.reconstruct(end))
    path = {}
    for k, z in first.items():
        t = torch.linspace(0, 1, steps, device=z.device).view(-1, *[1] * (z.ndim - 1))
        path[k] = torch.lerp(z, last[k], t) if k in moving else z.expand(steps, *z.shape[1:])
    return model.sample(steps, seeded(0), keep=path).images[0]


def rows_by_level(model: Cascade, start: Tensor, end: Tensor, steps: int) -> list[Tensor]:
    """The row where all levels move, then, from the coarsest, a row a level where that level alone moves."""
    alone = [interpolate(model, start, end, steps, [k]) for k in range(model.depth, 0, -1)]
    return [interpolate(model, start, end, steps), *(alone if model.depth > 1 else [])]
