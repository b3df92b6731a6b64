"""Every switch of a level trains, and does what its line in params.yaml says."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lapcvae.errors import ConfigError, DataError
from lapcvae.models.cascade import Cascade, run_level
from lapcvae.models.level import Coarser, LevelCVAE
from lapcvae.models.settings import ModelSettings
from lapcvae.pyramid.filters import PyramidKind
from lapcvae.training.arrays import LevelData, open_arrays, prepare_prior
from lapcvae.training.loop import train
from lapcvae.training.objective import noisy, terms
from lapcvae.training.processes import Processes
from lapcvae.training.rebuild import calibrate_sigma, write_rebuilt
from lapcvae.training.trainable import LevelTraining
from tests.training.made import CPU, Small, make_small

SWITCHES: list[tuple[PyramidKind, dict[str, Any]]] = [
    ("haar", {"loop": "open"}),
    ("haar", {"loop": "closed"}),
    ("bilinear", {}),
    ("burt", {"prior": "latent"}),
    ("burt", {"prior": "ancestral"}),
    ("burt", {"prior": "standard"}),
    ("burt", {"prior": "ancestral", "latent": "vector", "network": "plain", "residual_posterior": False}),
    ("burt", {"likelihood": "laplace"}),
    ("burt", {"likelihood": "laplace", "sigma": "learned"}),
    ("burt", {"sigma": "fixed", "sigma_255": 12.0}),
    ("burt", {"condition": "true", "prior": "standard"}),
    ("burt", {"condition": "noisy_true", "true_noise": 0.05, "prior": "latent", "loop": "open"}),
]


def fitted(small: Small, level: LevelCVAE, data: LevelData, updates: int = 16) -> list[dict[str, float]]:
    """Train a level as the pipeline does; its curve."""
    prepare_prior(level, data.training, small.rows["train"])
    settings = dataclasses.replace(small.training, updates=updates, log_interval=updates // 4)
    trainable = LevelTraining(level, data.training, small.kind)
    result = train(trainable, small.rows, settings, 0, Processes(CPU), "test")
    calibrate_sigma(level, data.composed, small.rows["train"], small.kind, 0)
    return result.curve


@pytest.mark.parametrize(("kind", "switch"), SWITCHES)
def test_a_finer_level_learns_and_the_composed_model_draws(
    tmp_path: Path, kind: PyramidKind, switch: dict[str, Any]
) -> None:
    small = make_small(tmp_path, kind)
    coarse, fine = small.level(2), small.level(1, **switch)
    data = small.data(1, fine.settings, coarse)
    curve = fitted(small, fine, data)
    assert curve[-1]["val_loss_nats"] < curve[0]["val_loss_nats"]
    if "sigma_255" in switch:
        assert 255 * math.exp(float(fine.log_sigma.detach())) == pytest.approx(switch["sigma_255"])
    model = Cascade([fine, coarse], kind).eval()
    drawn = model.sample(2, torch.Generator().manual_seed(0)).images[0]
    assert torch.isfinite(drawn).all()
    x, coarser = data.composed.gather(small.rows["test"], np.zeros_like(small.rows["test"]))
    packed = run_level(fine, x, coarser, kind, None)
    composed = model.reconstruct(x)[0]
    # fp16 levels and coarse images; a latent prior has the posterior's own spread only where it is stored.
    loose = 2e-2 if switch.get("prior") == "latent" else 2e-3
    torch.testing.assert_close(packed.rebuilt, composed.rebuilt, atol=loose, rtol=0)


def test_training_a_finer_level_leaves_coarser_ones_as_they_were_to_the_bit(small: Small) -> None:
    coarse = small.level(2)
    fitted(small, coarse, small.data(2, coarse.settings))
    weights = {name: value.clone() for name, value in coarse.state_dict().items()}
    fine = small.level(1)
    data = small.data(1, fine.settings, coarse)
    files = {path.name: path.read_bytes() for path in (small.folder / "rebuilt").iterdir()}
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = Cascade([small.level(1), coarse]).eval().reconstruct(x)[1].rebuilt
    fitted(small, fine, data)
    assert all(torch.equal(value, weights[name]) for name, value in coarse.state_dict().items())
    assert {path.name: path.read_bytes() for path in (small.folder / "rebuilt").iterdir()} == files
    assert torch.equal(Cascade([fine, coarse]).eval().reconstruct(x)[1].rebuilt, before)


def test_true_condition_shows_the_true_image_and_composes_with_the_rebuilt_one(small: Small) -> None:
    settings = ModelSettings(condition="true")
    data = small.data(1, settings, small.level(2))
    rows = small.rows["val"]
    _, shown = data.training.gather(rows, np.ones_like(rows))
    _, composed = data.composed.gather(rows, np.ones_like(rows))
    true = small.data(2, settings).training.gather(rows, np.ones_like(rows))[0]
    assert shown is not None
    assert composed is not None
    assert torch.equal(shown.image, true)
    assert not torch.equal(composed.image, true)
    assert torch.equal(shown.mean, composed.mean)


def test_noisy_true_adds_the_noise_asked_for_to_the_image_alone() -> None:
    flat = torch.full((8, 3, 32, 32), 0.5)
    settings = ModelSettings(condition="noisy_true", true_noise=0.05)
    seen = noisy(Coarser(flat, flat, -3.0), settings, torch.Generator().manual_seed(0))
    assert seen is not None
    assert float((seen.image - flat).std()) == pytest.approx(0.05, rel=0.05)
    assert torch.equal(seen.mean, flat)


def test_condition_noise_is_counted_in_the_coarser_sigma() -> None:
    flat = torch.full((8, 3, 32, 32), 0.5)
    seen = noisy(
        Coarser(flat, flat, math.log(0.1)), ModelSettings(condition_noise=0.5), torch.Generator().manual_seed(0)
    )
    assert seen is not None
    assert float((seen.image - flat).std()) == pytest.approx(0.05, rel=0.05)
    assert torch.equal(seen.image, seen.mean)


def test_levels_that_see_true_images_train_in_any_order(small: Small) -> None:
    """No file of the coarser level exists; what the finer one leaves is marked as not the composed model's."""
    fine = small.level(1, condition="true", prior="standard")
    data = small.data(1, fine.settings)
    assert data.apart
    curve = fitted(small, fine, data)
    assert curve[-1]["val_loss_nats"] < curve[0]["val_loss_nats"]


@pytest.mark.parametrize("switch", [{}, {"condition": "true"}])
def test_a_level_that_needs_the_coarser_one_says_so(small: Small, switch: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"levels\.1\.after.*trains on what level 2 made"):
        small.data(1, ModelSettings(**switch))


def test_images_of_a_level_trained_apart_are_refused_where_composed_ones_are_needed(
    small: Small, tmp_path: Path
) -> None:
    rebuilt = tmp_path / "apart"
    rebuilt.mkdir()
    write_rebuilt(small.level(2).eval(), small.arrays(2), "burt", rebuilt, composed=False)
    with pytest.raises(ConfigError, match="level 2 was trained apart"):
        open_arrays(1, 2, ModelSettings(), small.folder, rebuilt, CPU)
    assert open_arrays(1, 2, ModelSettings(condition="true", prior="standard"), small.folder, rebuilt, CPU).apart


def test_a_folder_that_no_level_left_is_said(small: Small, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"level\.json: not readable"):
        open_arrays(1, 2, ModelSettings(), small.folder, tmp_path, CPU)


def test_the_typical_spread_is_the_mean_over_training_rows(small: Small) -> None:
    level = small.level(1, prior="latent")
    data = small.data(1, level.settings, small.level(2))
    prepare_prior(level, data.training, small.rows["train"])
    stored = np.load(small.folder / "rebuilt/posterior.npy")[small.rows["train"], :, 1].mean((0, 1))
    np.testing.assert_allclose(level.coarse_log_std.flatten().numpy(), stored, rtol=1e-5)


def test_lambda_scales_the_rate_and_warm_up_raises_it(small: Small) -> None:
    """A heavier KL weight buys a lower rate; a long warm-up leaves it as cheap as none."""

    def rate(**settings: object) -> float:
        level = small.level(2, **settings)
        return fitted(small, level, small.data(2, level.settings))[-1]["rate_nats"]

    heavy, plain, warming = rate(kl_weight=30.0), rate(), rate(kl_weight=30.0, kl_warmup=100_000)
    assert heavy < plain
    assert heavy < warming


def test_a_fixed_sigma_is_the_one_of_the_bound(small: Small) -> None:
    level = small.level(2, sigma="fixed", sigma_255=25.5)
    rows = small.rows["train"]
    x, _ = small.arrays(2).gather(rows, np.zeros_like(rows))
    done = run_level(level, x, None, "burt", None)
    expected = -torch.distributions.Normal(done.mean, 0.1).log_prob(done.target).sum((1, 2, 3)).mean()
    torch.testing.assert_close(terms(level, done)[2], expected)


def test_a_pixelcnn_learns_the_coarsest_level(small: Small) -> None:
    level = small.level(2, likelihood="pixelcnn")
    curve = fitted(small, level, small.data(2, level.settings), updates=60)
    assert curve[-1]["val_loss_nats"] < curve[0]["val_loss_nats"]


def test_an_ignored_latent_sounds_the_alarm(small: Small, capsys: pytest.CaptureFixture[str]) -> None:
    """A KL weight that no latent is worth: a PixelCNN tells pixels from their neighbours instead."""
    level = small.level(2, likelihood="pixelcnn", kl_weight=1e5)
    fitted(small, level, small.data(2, level.settings))
    assert "posterior collapse" in capsys.readouterr().err


def test_the_perceptual_term_is_in_the_curve_under_its_networks_name_and_is_lowered(small: Small) -> None:
    def last(weight: float) -> dict[str, float]:
        level = small.level(2, perceptual_weight=weight)
        return fitted(small, level, small.data(2, level.settings))[-1]

    weak, strong = (last(weight)["perceptual_mobilenetv2"] for weight in (1e-6, 30.0))
    assert strong < weak
    assert "perceptual_mobilenetv2" not in last(0.0)
