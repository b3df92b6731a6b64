import math

import pytest
import torch

from lapcvae.evaluation import bound


@pytest.mark.parametrize("sigma", [0.3, 4.0, 60.0])
@pytest.mark.parametrize("centre", [-0.2, 0.013, 0.5, 0.99, 1.3])
def test_the_masses_of_all_values_sum_to_one(sigma: float, centre: float) -> None:
    values = torch.arange(256).view(256, 1, 1, 1) / 255
    nll = bound.discretised_nll(values, torch.full_like(values, centre), sigma)
    assert float((-nll).exp().sum()) == pytest.approx(1, abs=1e-9)


def test_a_wide_gaussian_is_nearly_its_density() -> None:
    x = torch.full((1, 3, 4, 4), 120 / 255)
    nll = bound.discretised_nll(x, x + 3 / 255, 20.0)
    density = -torch.distributions.Normal(3.0, 20.0).log_prob(torch.tensor(0.0)) * 48
    assert float(nll) == pytest.approx(float(density), rel=1e-3)


def test_bits_count_rate_and_distortion() -> None:
    bits = bound.bits_per_dim(torch.tensor([20.0]), torch.tensor([28.0]), 48)
    assert float(bits) == pytest.approx(1 / math.log(2))


def test_the_calibrated_sigma_is_the_best_one() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(60, 200, (1, 3, 64, 64), generator=g) / 255
    rebuilt = x + 7 / 255 * torch.randn(x.shape, generator=g)
    best = bound.calibrated_sigma(float(((x - rebuilt) * 255).square().mean()))
    nll = {f: float(bound.discretised_nll(x, rebuilt, f * best)) for f in (0.9, 1.0, 1.1)}
    assert min(nll, key=nll.__getitem__) == 1.0
