"""All levels together, from their greedy weights: the sum of L_k plus the image-space bound.

    sum_k L_k  +  image_weight ( -E log N(x; x~_1, s^2) + sum_k KL_k ),        s at its optimum on the batch

Gradients pass through the rebuilt images, so a coarser level learns what finer ones make of it.
Shapes: images B 3 S S on [0, 1]; terms in nats, averaged over images.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from lapcvae.io.progress import progress
from lapcvae.models.cascade import Cascade
from lapcvae.models.gaussian import gaussian_nll, optimal_log_sigma
from lapcvae.models.likelihood import deviation, log_sigma_of
from lapcvae.models.noise import Drawn
from lapcvae.pyramid.laplacian import gaussian_pyramid
from lapcvae.training.arrays import LevelArrays
from lapcvae.training.objective import terms
from lapcvae.training.processes import over_processes
from lapcvae.training.trainable import KL_UNITS, Terms, Trainable

_CHUNK = 256


class EndToEnd(Trainable):
    """A whole cascade. The curve shows the image-space bound: its rate is that of all levels, its distortion x~_1's."""

    def __init__(self, cascade: Cascade, arrays: LevelArrays, image_weight: float) -> None:
        """arrays: of level 1; coarser images are reduced from it."""
        super().__init__()
        self.cascade, self.arrays, self.image_weight = cascade, arrays, image_weight

    def noise_shapes(self) -> list[tuple[int, ...]]:
        """Of the latents, from the coarsest level down."""
        return [self.cascade.level(k).latent_shape for k in range(self.cascade.depth, 0, -1)]

    def pick(self, rows: np.ndarray, flips: np.ndarray) -> tuple[Tensor, ...]:
        """The photographs, as they are stored."""
        return self.arrays.pick(rows, flips)

    def forward(self, packed: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Terms:
        """Both bounds: `rate_nats`, `distortion_nats` of the image, `coefficient_bound_nats` the sum of L_k."""
        x, _ = self.arrays.unpack(packed)
        passes = self.cascade.run(x, Drawn(noise))
        squares = (x - passes[0].rebuilt).square()
        log_sigma = optimal_log_sigma(over_processes(squares))
        found: Terms = {
            "distortion_nats": gaussian_nll(squares, log_sigma).sum((1, 2, 3)).mean(),
            "log_sigma": log_sigma,
        }
        rates, bounds, weighted = [], [], []
        for k, done in enumerate(passes, 1):
            level = self.cascade.level(k)
            rate, paid, distortion = terms(level, done)
            rates.append(rate)
            bounds.append(rate + distortion)
            weighted.append(distortion + level.settings.kl_weight * paid)
            found[f"{KL_UNITS}_{k}"] = done.kl().detach().mean(0).flatten()
        return {
            **found,
            "rate_nats": sum(rates[1:], rates[0]),
            "coefficient_bound_nats": sum(bounds[1:], bounds[0]),
            "_levels_nats": sum(weighted[1:], weighted[0]),
        }

    def losses(self, batch_terms: Terms, update: int | Tensor) -> Mapping[str, Tensor]:
        """The sum above, a dimension of the image."""
        image = batch_terms["rate_nats"] + batch_terms["distortion_nats"]
        return {"model": (batch_terms["_levels_nats"] + self.image_weight * image) / self.dimensions()}

    def dimensions(self) -> int:
        """3 S S of the image."""
        return 3 * self.cascade.level(1).side ** 2


@torch.no_grad()
def calibrate(cascade: Cascade, arrays: LevelArrays, rows: np.ndarray, seed: int) -> None:
    """Set every `optimal` sigma_k to its optimum on these rows at posterior samples, coarsest first.

    Coarsest first, because a finer level's prior may read sigma_{k+1}.
    """
    for k in range(cascade.depth, 0, -1):
        level = cascade.level(k)
        if level.settings.sigma != "optimal":
            continue
        noise = torch.Generator(level.log_sigma.device)
        noise.manual_seed(seed)
        sums, count = torch.zeros((), dtype=torch.float64, device=level.log_sigma.device), 0
        coarse = Cascade([cascade.level(j) for j in range(k, cascade.depth + 1)], cascade.kind)
        bar = progress(total=len(rows), label=f"sigma of level {k}", unit="image")
        for start in range(0, len(rows), _CHUNK):
            part = rows[start : start + _CHUNK]
            x, _ = arrays.gather(part, np.zeros_like(part))
            own = gaussian_pyramid(x, k, cascade.kind)[-1]
            found = deviation(coarse.reconstruct(own, noise)[0].error.double(), level.settings.likelihood)
            sums, count = sums + found.sum(), count + found.numel()
            bar.update(len(part))
        bar.close()
        level.log_sigma.fill_(float(log_sigma_of(sums / count, level.settings.likelihood)))
