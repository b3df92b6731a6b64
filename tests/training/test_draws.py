"""`draw: fitted` draws latents as training faces have them, and changes nothing else."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from lapcvae.errors import ConfigError
from lapcvae.models.cascade import Cascade, run_level
from lapcvae.models.gaussian import DiagonalGaussian
from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import half_scale
from lapcvae.models.settings import PRESETS, ModelSettings
from lapcvae.models.storage import Description
from lapcvae.training.draws import fit_draws, fit_draws_together
from lapcvae.training.loop import train
from lapcvae.training.processes import Processes
from lapcvae.training.trainable import LevelTraining
from tests.training.made import CPU, Small, make_small

UPDATES = 150


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Small, LevelCVAE]:
    """The coarsest level after some training, its draws fitted."""
    small = make_small(tmp_path_factory.mktemp("draws"), "burt")
    level = small.level(2, draw="fitted")
    data = small.data(2, level.settings)
    settings = dataclasses.replace(small.training, updates=UPDATES, log_interval=50)
    train(LevelTraining(level, data.training, small.kind), small.rows, settings, 0, Processes(CPU), "test")
    fit_draws(level, data.composed, small.rows["train"], small.kind)
    return small, level


def standard(level: LevelCVAE, count: int) -> tuple[DiagonalGaussian, torch.Tensor]:
    noise = torch.randn(count, *level.latent_shape, generator=torch.Generator().manual_seed(0))
    return level.prior(None, count), noise


def test_draws_have_the_moments_of_the_latents_of_training_faces(fitted: tuple[Small, LevelCVAE]) -> None:
    small, level = fitted
    data, rows = small.data(2, level.settings), small.rows["train"]
    drawn = level.draw(*standard(level, 20000)).flatten(1).detach().numpy()
    noise = torch.Generator().manual_seed(1)
    seen = []
    for _ in range(200):
        for flip in (0, 1):
            x, _ = data.composed.gather(rows, np.full_like(rows, flip))
            seen.append(run_level(level, x, None, small.kind, noise).z.flatten(1).detach().numpy())
    latents = np.concatenate(seen)
    np.testing.assert_allclose(drawn.mean(0), latents.mean(0), atol=0.05)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(latents.T), atol=0.05)
    # Neither is what an independent prior has.
    assert np.abs(np.cov(latents.T) - np.eye(latents.shape[1])).max() > 0.3


def test_temperature_scales_the_spread_alone(fitted: tuple[Small, LevelCVAE]) -> None:
    _, level = fitted
    prior, noise = standard(level, 3)
    still, half, full = (level.draw(prior, noise, t) for t in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, 0.5 * (still + full))
    assert torch.equal(still[0], still[1])


def test_what_is_learned_and_rebuilt_does_not_change(fitted: tuple[Small, LevelCVAE]) -> None:
    small, level = fitted
    plain = small.level(2)
    data = small.data(2, plain.settings)
    settings = dataclasses.replace(small.training, updates=UPDATES, log_interval=50)
    train(LevelTraining(plain, data.training, small.kind), small.rows, settings, 0, Processes(CPU), "test")
    have = level.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(have[name], value), name
    assert set(have) - set(plain.state_dict()) == {"drawn_mean", "drawn_root"}
    x, _ = data.composed.gather(small.rows["test"], np.zeros_like(small.rows["test"]))
    one, other = (run_level(m, x, None, small.kind, None) for m in (plain, level))
    assert torch.equal(one.rebuilt, other.rebuilt)
    assert torch.equal(one.kl(), other.kl())


def test_all_levels_of_a_composed_model_are_fitted_alike(fitted: tuple[Small, LevelCVAE]) -> None:
    small, coarse = fitted
    fine = small.level(1, draw="fitted")
    data = small.data(1, fine.settings, coarse)
    kept = coarse.drawn_root.clone(), coarse.drawn_mean.clone()
    fit_draws(fine, data.composed, small.rows["train"], small.kind)
    alone = fine.drawn_root.clone()
    photographs = dataclasses.replace(data.composed, coarse_image=None, coarse_mean=None)
    fit_draws_together(Cascade([fine, coarse], small.kind).eval(), photographs, small.rows["train"])
    torch.testing.assert_close(fine.drawn_root, alone, atol=2e-2, rtol=0)  # stored coarse images are fp16
    torch.testing.assert_close(coarse.drawn_root, kept[0], atol=2e-2, rtol=0)
    torch.testing.assert_close(coarse.drawn_mean, kept[1], atol=2e-2, rtol=0)


def test_a_map_too_large_for_a_matrix_is_refused(tmp_path: Path) -> None:
    settings = ModelSettings(**{**PRESETS["modern"], "width": 4, "latent_size": 65})
    with pytest.raises(ConfigError, match=r"up to 4096 latents, not 4160.*draw: prior"):
        Description(1, 1, 64, "burt", settings, half_scale()).build()
