"""The composed model's bound, on a model small enough to integrate over its two latents."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lapcvae.models.cascade import Cascade
from lapcvae.models.gaussian import DiagonalGaussian, kl_divergence
from lapcvae.models.level import Coarser, LevelCVAE
from lapcvae.models.scale import scale_of
from lapcvae.models.settings import ModelSettings
from tests.models.conftest import STATISTICS

SIGMA = 1.0  # of p(x | x~_1), [0, 1] scale: wide, so that latents stay uncertain and the bound is not tight
DRAWS = 4000


@pytest.fixture
def tiny() -> Cascade:
    """Levels of 16 and 8 px with one latent each; decoders and prior far from zero, posteriors a little off."""
    torch.manual_seed(4)
    settings = ModelSettings(network="plain", width=4, latent="vector", latent_size=1, prior="ancestral")
    levels = [LevelCVAE(settings, 16, False, scale_of(STATISTICS, 1, 2), "burt", (1,))]
    levels.append(LevelCVAE(settings, 8, True, scale_of(STATISTICS, 2, 2)))
    for level in levels:
        for parameter in level.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
        weight, bias = level.to_posterior.parameters()
        torch.nn.init.normal_(weight, std=1e-4)
        bias.data.copy_(torch.tensor([0.4, -0.3]))  # mean and log std, in the prior's units
    return Cascade(levels).eval()


def log_likelihood(x: Tensor, rebuilt: Tensor) -> Tensor:
    return torch.distributions.Normal(rebuilt, SIGMA).log_prob(x).sum((1, 2, 3)).double()


def log_density(of: DiagonalGaussian, z: Tensor) -> Tensor:
    return torch.distributions.Normal(of.mean, of.log_std.exp()).log_prob(z).sum(1).double()


@torch.no_grad()
def integrated(model: Cascade, x: Tensor) -> float:
    """log p(x) by the trapezoidal rule over both latents, each in its prior's units."""
    at = torch.linspace(-6, 6, 161)
    coarse, fine = (grid.reshape(-1, 1) for grid in torch.meshgrid(at, at, indexing="ij"))
    drawn = model.sample(len(coarse), torch.Generator().manual_seed(0), keep={2: coarse, 1: torch.zeros_like(fine)})
    prior = model.level(1).prior(Coarser(drawn.images[1], drawn.images[1], 0.0, coarse), len(coarse))
    z = prior.at(fine)
    drawn = model.sample(len(coarse), torch.Generator().manual_seed(0), keep={2: coarse, 1: z})
    standard = torch.distributions.Normal(0.0, 1.0)
    log_weight = (standard.log_prob(coarse) + standard.log_prob(fine)).sum(1).double() + 2 * math.log(
        float(at[1] - at[0])
    )
    return float(torch.logsumexp(log_likelihood(x.expand(len(coarse), -1, -1, -1), drawn.images[0]) + log_weight, 0))


def _prior_of_level_1(model: Cascade, coarse_image: Tensor, z: Tensor) -> DiagonalGaussian:
    from lapcvae.models.level import Coarser

    return model.level(1).prior(Coarser(coarse_image, coarse_image, 0.0, z), len(z))


def test_the_bound_lies_below_the_importance_weighted_estimate_which_finds_the_likelihood(tiny: Cascade) -> None:
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    passes = tiny.reconstruct(x.expand(DRAWS, -1, -1, -1), torch.Generator().manual_seed(1))
    likelihood = log_likelihood(x, passes[0].rebuilt)
    ratio = sum(log_density(p.prior, p.z) - log_density(p.posterior, p.z) for p in passes)
    weights = likelihood + ratio
    bound = likelihood - sum(p.kl().sum(1).double() for p in passes)
    truth = integrated(tiny, x)

    # The two ways to write the bound agree: sampled ratios, and analytic KL terms.
    error = float((weights - bound).std()) / math.sqrt(DRAWS)
    assert float(weights.mean() - bound.mean()) == pytest.approx(0, abs=5 * error)
    # Bound < importance-weighted bounds of more and more samples < log p(x), reached by the tightest.
    estimates = [float(torch.logsumexp(weights.view(-1, n), 1).mean() - math.log(n)) for n in (1, 10, 100, DRAWS)]
    assert estimates == sorted(estimates)
    assert float(bound.mean()) < truth - 5 * error
    assert estimates[-1] == pytest.approx(truth, abs=0.1)


def test_kl_is_zero_where_the_posterior_is_the_prior(cascade: Callable[..., Cascade], faces: Tensor) -> None:
    for done in cascade().reconstruct(faces):
        assert kl_divergence(done.prior, done.prior).abs().max() == 0
