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
from lapcvae.models.likelihood import best_log_sigma, level_nll
from lapcvae.models.settings import ModelSettings


def terms(level: LevelCVAE, done: LevelPass) -> tuple[Tensor, Tensor, Tensor]:
    """(rate, rate with free bits paid, distortion) of a batch in nats: summed over dimensions, averaged over images."""
    kl = done.kl()
    # A vector's free bits count a latent; a map's a channel, its positions together.
    per_group = kl.flatten(2).sum(2).mean(0) if kl.ndim == 4 else kl.mean(0)
    distortion = level_nll(level, done.error, batch_log_sigma(level, done)).mean()
    return per_group.sum(), per_group.clamp_min(level.settings.free_bits).sum(), distortion


def batch_log_sigma(level: LevelCVAE, done: LevelPass) -> Tensor:
    """log sigma_k of a batch, a scalar: the level's own, or the likelihood's optimum on this batch."""
    if level.settings.sigma != "optimal":
        return level.log_sigma
    return best_log_sigma(done.error, level.settings.likelihood)


def noisy(coarser: Coarser | None, settings: ModelSettings, generator: torch.Generator) -> Coarser | None:
    """Level k+1 as training shows it: with the Gaussian noise that `settings` ask for.

    `condition_noise` times sigma_{k+1} on image and mean, which are of one piece; or `true_noise` on the true image
    alone.
    """
    if coarser is None or (settings.condition_noise == 0 and settings.true_noise == 0):
        return coarser
    shape, device = coarser.image.shape, coarser.image.device
    noise = torch.randn(shape, generator=generator, device=device)
    if settings.true_noise:
        return replace(coarser, image=coarser.image + settings.true_noise * noise)
    noise = noise * (settings.condition_noise * math.exp(coarser.log_sigma))
    return replace(coarser, image=coarser.image + noise, mean=coarser.mean + noise)
