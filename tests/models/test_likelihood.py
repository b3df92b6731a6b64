import pytest
import torch
from torch.distributions import Laplace, Normal

from lapcvae.models.likelihood import deviation, log_sigma_of, nll
from lapcvae.models.settings import Likelihood

ERRORS = torch.randn(500, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("likelihood", "density"), [("gaussian", Normal), ("laplace", Laplace)])
def test_nll_is_torchs(likelihood: Likelihood, density: type[Normal] | type[Laplace]) -> None:
    log_sigma = torch.tensor(-0.7)
    expected = -density(torch.zeros(()), log_sigma.exp()).log_prob(ERRORS)
    torch.testing.assert_close(nll(ERRORS, log_sigma, likelihood), expected)


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_the_best_sigma_beats_its_neighbours(likelihood: Likelihood) -> None:
    best = log_sigma_of(deviation(ERRORS, likelihood), likelihood)
    below, here, above = (nll(ERRORS, best + shift, likelihood).mean() for shift in (-0.05, 0.0, 0.05))
    assert here < below
    assert here < above
