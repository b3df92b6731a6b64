"""What training minimises: rate and distortion of one level on a batch, in nats.

L_k = -E_{q_k}[ log p_k(h_k | z_k, ..., z_K) ] + lambda_k KL( q_k || p(z_k | level k+1) )
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lapcvae.models.cascade import LevelPass
from lapcvae.models.gaussian import gaussian_nll, optimal_log_sigma
from lapcvae.models.level import Coarser, LevelCVAE


def terms(level: LevelCVAE, done: LevelPass) -> tuple[Tensor, Tensor, Tensor]:
    """(rate, rate with free bits paid, distortion) of a batch in nats: summed over dimensions, averaged over images."""
    kl = done.kl()
    # A vector's free bits count a latent; a map's a channel, its positions together.
    per_group = kl.flatten(2).sum(2).mean(0) if kl.ndim == 4 else kl.mean(0)
    squared_error = (done.target - done.mean).square()
    distortion = gaussian_nll(squared_error, batch_log_sigma(level, done)).sum((1, 2, 3)).mean()
    return per_group.sum(), per_group.clamp_min(level.settings.free_bits).sum(), distortion


def batch_log_sigma(level: LevelCVAE, done: LevelPass) -> Tensor:
    """log sigma_k of a batch, a scalar: the level's parameter, or the likelihood's optimum on this batch."""
    if level.settings.sigma == "learned":
        return level.log_sigma
    return optimal_log_sigma((done.target - done.mean).square())


def noisy(coarser: Coarser | None, amount: float, generator: torch.Generator) -> Coarser | None:
    """Level k+1 with Gaussian noise of `amount` times sigma_{k+1} on its image and mean."""
    if coarser is None or amount == 0:
        return coarser
    shape, device = coarser.image.shape, coarser.image.device
    noise = torch.randn(shape, generator=generator, device=device) * (amount * math.exp(coarser.log_sigma))
    return Coarser(coarser.image + noise, coarser.mean + noise, coarser.log_sigma)
