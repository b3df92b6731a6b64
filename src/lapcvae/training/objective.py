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
from lapcvae.models.noise import Noise, standard_normal
from lapcvae.training.processes import over_processes


def terms(level: LevelCVAE, done: LevelPass) -> tuple[Tensor, Tensor, Tensor]:
    """(rate, rate with free bits paid, distortion) of a batch in nats: summed over dimensions, averaged over images."""
    kl = done.kl()
    # A vector's free bits count a latent; a map's a channel, its positions together.
    per_group = kl.flatten(2).sum(2).mean(0) if kl.ndim == 4 else kl.mean(0)
    free = torch.full_like(per_group, level.settings.free_bits)
    # Whether a group is within its free bits is for the whole batch to say, which several processes may share.
    paid = torch.where(over_processes(per_group, keep=True) < free, free, per_group)
    squared_error = (done.target - done.mean).square()
    distortion = gaussian_nll(squared_error, batch_log_sigma(level, done)).sum((1, 2, 3)).mean()
    return per_group.sum(), paid.sum(), distortion


def batch_log_sigma(level: LevelCVAE, done: LevelPass) -> Tensor:
    """log sigma_k of a batch, a scalar: the level's parameter, or the likelihood's optimum on this batch."""
    if level.settings.sigma == "learned":
        return level.log_sigma
    # At the optimum the loss does not change with sigma, so nothing is lost where its gradient is not followed.
    return optimal_log_sigma(over_processes((done.target - done.mean).square()))


def noisy(coarser: Coarser | None, amount: float, generator: Noise) -> Coarser | None:
    """Level k+1 with Gaussian noise of `amount` times sigma_{k+1} on its image and mean."""
    if coarser is None or amount == 0:
        return coarser
    shape, device = coarser.image.shape, coarser.image.device
    noise = standard_normal(shape, generator, device, torch.float32) * (amount * math.exp(coarser.log_sigma))
    return Coarser(coarser.image + noise, coarser.mean + noise, coarser.log_sigma)
