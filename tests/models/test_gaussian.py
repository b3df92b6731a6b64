import math

import pytest
import torch
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl

from lapcvae.models.gaussian import DiagonalGaussian, gaussian_nll, kl_divergence, optimal_log_sigma


@pytest.fixture
def pair() -> tuple[DiagonalGaussian, DiagonalGaussian]:
    g = torch.Generator().manual_seed(1)
    q, p = (DiagonalGaussian(torch.randn(3, 5, generator=g), 0.5 * torch.randn(3, 5, generator=g)) for _ in range(2))
    return q, p


def test_kl_is_torchs(pair: tuple[DiagonalGaussian, DiagonalGaussian]) -> None:
    q, p = pair
    expected = reference_kl(Normal(q.mean, q.log_std.exp()), Normal(p.mean, p.log_std.exp()))
    torch.testing.assert_close(kl_divergence(q, p), expected)


def test_kl_is_the_mean_log_ratio_of_samples(pair: tuple[DiagonalGaussian, DiagonalGaussian]) -> None:
    q, p = pair
    n = 200_000
    many = DiagonalGaussian(q.mean.expand(n, 3, 5), q.log_std.expand(n, 3, 5))
    z = many.sample(torch.Generator().manual_seed(0))
    ratio = Normal(q.mean, q.log_std.exp()).log_prob(z) - Normal(p.mean, p.log_std.exp()).log_prob(z)
    error = ratio.std(0) / math.sqrt(n)
    assert ((ratio.mean(0) - kl_divergence(q, p)).abs() < 5 * error).all()


def test_nll_is_torchs() -> None:
    g = torch.Generator().manual_seed(2)
    x, mean = torch.randn(4, 3, generator=g), torch.randn(4, 3, generator=g)
    log_sigma = torch.tensor(-0.7)
    expected = -Normal(mean, log_sigma.exp()).log_prob(x)
    torch.testing.assert_close(gaussian_nll((x - mean).square(), log_sigma), expected)


def test_optimal_sigma_beats_its_neighbours() -> None:
    error = torch.randn(100, generator=torch.Generator().manual_seed(3)).square()
    best = optimal_log_sigma(error)
    nll = [gaussian_nll(error, best + shift).mean() for shift in (-0.05, 0.0, 0.05)]
    assert nll[1] < nll[0]
    assert nll[1] < nll[2]


def test_temperature_zero_is_the_mean(pair: tuple[DiagonalGaussian, DiagonalGaussian]) -> None:
    q, _ = pair
    torch.testing.assert_close(q.sample(torch.Generator().manual_seed(0), temperature=0.0), q.mean)


def test_residual_posterior_at_zero_is_the_prior(pair: tuple[DiagonalGaussian, DiagonalGaussian]) -> None:
    _, p = pair
    q = DiagonalGaussian.standard(p.mean).relative_to(p)
    assert kl_divergence(q, p).abs().max() == 0


def test_log_std_stays_in_range_with_a_gradient_everywhere() -> None:
    out = torch.tensor([[0.0, -20.0], [0.0, 9.0], [0.0, 0.3]], requires_grad=True)
    q = DiagonalGaussian.from_network(out)
    assert q.log_std.min() >= -8
    assert q.log_std.max() <= 4
    q.log_std.sum().backward()
    assert out.grad is not None
    assert (out.grad[:, 1] > 0).all()
