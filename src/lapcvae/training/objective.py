"""What training minimises: rate and distortion of one level on a batch, in nats.

L_k = -E_{q_k}[ log p_k(h_k | z_k, ..., z_K) ] + lambda_k KL( q_k || p(z_k | level k+1) )
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from lapcvae.models.cascade import LevelPass
from lapcvae.models.level import Coarser, LevelCVAE
from lapcvae.models.likelihood import deviation, level_nll, log_sigma_of
from lapcvae.models.noise import Noise, standard_normal
from lapcvae.models.settings import ModelSettings
from lapcvae.training.processes import over_processes


def terms(level: LevelCVAE, done: LevelPass) -> tuple[Tensor, Tensor, Tensor]:
    """(rate, rate with free bits paid, distortion) of a batch in nats: summed over dimensions, averaged over images."""
    kl = done.kl()
    # A vector's free bits count a latent; a map's a channel, its positions together.
    per_group = kl.flatten(2).sum(2).mean(0) if kl.ndim == 4 else kl.mean(0)
    free = torch.full_like(per_group, level.settings.free_bits)
    # Whether a group is within its free bits is for the whole batch to say, which several processes may share.
    paid = torch.where(over_processes(per_group, keep=True) < free, free, per_group)
    distortion = level_nll(level, done, batch_log_sigma(level, done)).mean()
    return per_group.sum(), paid.sum(), distortion


def batch_log_sigma(level: LevelCVAE, done: LevelPass) -> Tensor:
    """log sigma_k of a batch, a scalar: the level's own, or the likelihood's optimum on this batch."""
    if level.settings.sigma != "optimal":
        return level.log_sigma
    likelihood = level.settings.likelihood
    # At the optimum the loss does not change with sigma, so nothing is lost where its gradient is not followed.
    return log_sigma_of(over_processes(deviation(done.error, likelihood)), likelihood)


def noisy(coarser: Coarser | None, settings: ModelSettings, generator: Noise) -> Coarser | None:
    """Level k+1 as training shows it: with the Gaussian noise that `settings` ask for.

    `condition_noise` times sigma_{k+1} on image and mean, which are of one piece; or `true_noise` on the true image
    alone.
    """
    if coarser is None or (settings.condition_noise == 0 and settings.true_noise == 0):
        return coarser
    shape, device = coarser.image.shape, coarser.image.device
    noise = standard_normal(shape, generator, device, torch.float32)
    if settings.true_noise:
        return replace(coarser, image=coarser.image + settings.true_noise * noise)
    noise = noise * (settings.condition_noise * math.exp(float(coarser.log_sigma)))
    return replace(coarser, image=coarser.image + noise, mean=coarser.mean + noise)
