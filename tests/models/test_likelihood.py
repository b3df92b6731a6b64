import pytest
import torch
from torch.distributions import Laplace, Normal

from lapcvae.models.cascade import run_level
from lapcvae.models.level import LevelCVAE
from lapcvae.models.likelihood import deviation, level_nll, log_sigma_of, nll, permutation_importance
from lapcvae.models.scale import half_scale
from lapcvae.models.settings import Likelihood, ModelSettings

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


def test_permutation_importance_is_what_another_images_latents_cost() -> None:
    torch.manual_seed(0)
    level = LevelCVAE(ModelSettings(latent="vector", latent_size=8), 16, True, half_scale())
    x, noise = torch.rand(5, 3, 16, 16), torch.Generator().manual_seed(0)
    log_sigma = torch.tensor(-1.0)
    with torch.no_grad():
        torch.nn.init.normal_(level.renderer.smooth.weight, std=0.1)  # type: ignore[union-attr, arg-type]
        done = run_level(level, x, None, "burt", noise)
        found = permutation_importance(level, done, log_sigma)
        mean = level.decode(done.z[[4, 0, 1, 2, 3]], None)
        cost = nll(x - mean, log_sigma, "gaussian").sum((1, 2, 3)) - level_nll(level, done, log_sigma)
    torch.testing.assert_close(found, cost)
    assert found.abs().min() > 0.01
