"""p_k(target | mu_k, sigma_k) of one level in nats: Gaussian or Laplace, one scale a level, or a PixelCNN.

Shapes: errors B C S S (target minus mean, in the coordinates the likelihood counts); log_sigma a scalar tensor.
"""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from lapcvae.models.cascade import LevelPass
from lapcvae.models.gaussian import gaussian_nll, optimal_log_sigma
from lapcvae.models.level import LevelCVAE
from lapcvae.models.settings import Likelihood


def nll(error: Tensor, log_sigma: Tensor, likelihood: Likelihood) -> Tensor:
    """-log p of each dimension; a Laplace density's sigma is its scale b, its standard deviation over sqrt(2)."""
    if likelihood == "laplace":
        return error.abs() * (-log_sigma).exp() + log_sigma + math.log(2)
    return gaussian_nll(error.square(), log_sigma)


def deviation(error: Tensor, likelihood: Likelihood) -> Tensor:
    """What sigma is estimated from, in the error's shape: squares, or sizes for a Laplace density."""
    return error.abs() if likelihood == "laplace" else error.square()


def log_sigma_of(deviations: Tensor, likelihood: Likelihood) -> Tensor:
    """The one log sigma under which errors of these deviations are likeliest."""
    if likelihood == "laplace":
        return deviations.mean().clamp_min(1e-5).log()
    return optimal_log_sigma(deviations)


def level_nll(level: LevelCVAE, done: LevelPass, log_sigma: Tensor) -> Tensor:
    """-log p_k of each image, B nats: summed over dimensions, in coordinates that the levels' sum may add up.

    A PixelCNN's mass of a value counts as a density that is constant over the 1/255 the value stands for.
    """
    numbers = done.error[0].numel()
    if level.pixels is not None:
        total = level.pixels.nll(done.target, done.mean) - numbers * math.log(255)
    else:
        total = nll(done.error, log_sigma, level.settings.likelihood).sum((1, 2, 3))
    # A density of gain * x is that of x divided by gain, for each number.
    return total if level.scale.gain == 1 else total + numbers * math.log(level.scale.gain)


def permutation_importance(level: LevelCVAE, done: LevelPass, log_sigma: Tensor) -> Tensor:
    """Distortion that each image's latents save beside those of another image of the batch: B nats.

    How much the decoder listens to z_k (permutation importance, Breiman 2001): about 0 where it ignores them, whatever
    their KL is. Needs two images or more.
    """
    mean = level.decode(done.z.roll(1, 0), done.condition)
    other = replace(done, mean=mean, error=level.error(done.target, mean))
    return level_nll(level, other, log_sigma) - level_nll(level, done, log_sigma)
