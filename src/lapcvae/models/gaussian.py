"""Diagonal Gaussians and Gaussian likelihoods, in nats."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lapcvae.models.noise import Noise, standard_normal

LOG_2PI = math.log(2 * math.pi)
# Bounds on a latent's log standard deviation: far outside what a trained posterior uses, tight enough for exp in fp32.
LOG_STD_RANGE = (-8.0, 4.0)


@dataclass(frozen=True)
class DiagonalGaussian:
    """N(mean, diag(exp(log_std)^2)); both B D or B C H W, fp32."""

    mean: Tensor
    log_std: Tensor

    @classmethod
    def standard(cls, like: Tensor) -> DiagonalGaussian:
        """N(0, I) in the shape of `like`."""
        return cls(torch.zeros_like(like), torch.zeros_like(like))

    @classmethod
    def from_network(cls, out: Tensor) -> DiagonalGaussian:
        """Split a network's output (mean, log_std on axis 1); log_std is held softly inside `LOG_STD_RANGE`."""
        mean, log_std = out.float().chunk(2, dim=1)
        low, high = LOG_STD_RANGE
        # Identity near 0, saturating far out: a hard clamp would cut the gradient that leads back.
        log_std = torch.where(log_std > 0, high * torch.tanh(log_std / high), -low * torch.tanh(log_std / -low))
        return cls(mean, log_std)

    def relative_to(self, prior: DiagonalGaussian) -> DiagonalGaussian:
        """Read self as an offset in the prior's units, the residual posterior of NVAE (Vahdat and Kautz 2020)."""
        return DiagonalGaussian(
            prior.mean + prior.log_std.exp() * self.mean,
            prior.log_std + self.log_std,
        )

    def sample(self, generator: Noise | None = None, temperature: float = 1.0) -> Tensor:
        """A reparameterised sample; `temperature` scales the standard deviation (0 gives the mean)."""
        noise = standard_normal(self.mean.shape, generator, self.mean.device, self.mean.dtype)
        return self.at(noise, temperature)

    def at(self, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """The value that standard normal `noise`, in the latents' shape, stands for."""
        return self.mean + temperature * self.log_std.exp() * noise


def kl_divergence(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    """KL(q || p) of each latent in nats, in the latents' shape (Kingma and Welling 2014, appendix B)."""
    variance_ratio = (2 * (q.log_std - p.log_std)).exp()
    shift = ((q.mean - p.mean) * (-p.log_std).exp()).square()
    return 0.5 * (variance_ratio + shift - 1) - (q.log_std - p.log_std)


def gaussian_nll(squared_error: Tensor, log_sigma: Tensor) -> Tensor:
    """-log N(x; mu, sigma^2) in nats of each dimension, from (x - mu)^2; broadcasts."""
    return 0.5 * (squared_error * (-2 * log_sigma).exp() + LOG_2PI) + log_sigma


def optimal_log_sigma(squared_error: Tensor) -> Tensor:
    """The one log sigma that maximises the Gaussian likelihood of these errors (Rybkin et al. 2021, eq. 8)."""
    return 0.5 * squared_error.mean().clamp_min(1e-10).log()
