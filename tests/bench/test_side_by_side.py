from pathlib import Path

import numpy as np
import pytest
import torch

from bench.side_by_side import drawing_from_the_prior, ratios, tera_flops
from bench.trained import OURS, place, settings_of
from lapcvae.config import read_params
from lapcvae.data.batches import PackedImages
from lapcvae.evaluation.measured import Measured
from lapcvae.evaluation.people import People
from lapcvae.evaluation.pictures import Pictures
from lapcvae.models.cascade import Cascade
from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import half_scale
from lapcvae.models.settings import ModelSettings

TOP = Path(__file__).parents[2]


def test_settings_are_the_profiles_with_single_keys_over_them() -> None:
    assert settings_of(None, []) == read_params(TOP / "params.yaml")
    found = settings_of("lfw64_cpu_paper", ["training.batch=16"])
    assert (found["model"]["preset"], found["training"]["batch"], found["source"]["kind"]) == ("paper", 16, "lfw")
    assert set(found["levels"]) == {"1", "2", "3"}


def test_a_model_lies_where_its_stages_leave_it() -> None:
    assert place(Path("a"), OURS) == Path("a/models")
    assert place(Path("a"), "vae") == Path("a/models/vae")


def measured(errors: np.ndarray) -> Measured:
    return Measured({}, {"rmse_posterior_mean": errors}, Pictures({}, torch.empty(0), None, None))


def test_a_target_stands_beside_what_was_found() -> None:
    vae = np.linspace(20, 30, 50)
    found = {"paper": measured(vae * 0.8), "vae": measured(vae)}
    ((name, ratio, most, paired),) = ratios(found, np.arange(50).astype(str), 64)
    assert (name, ratio, most) == ("paper / vae", "0.800", 0.90)
    assert str(paired).startswith("-5.00 (")


def test_the_prior_stands_in_for_a_fitted_draw_and_goes_again() -> None:
    settings = ModelSettings(network="plain", width=4, latent="vector", latent_size=3, draw="fitted")
    model = Cascade([LevelCVAE(settings, 16, True, half_scale())])
    model.level(1).set_draws(torch.full((3,), 9.0), torch.eye(3))
    with drawing_from_the_prior(model):
        by_prior = model.sample(1, torch.Generator().manual_seed(0)).latents[1]
    fitted = model.sample(1, torch.Generator().manual_seed(0)).latents[1]
    torch.testing.assert_close(fitted, by_prior + 9)


def test_operations_are_counted_forward_and_backward(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((8, 16, 16, 3), np.uint8))
    rows, none = np.arange(8), np.array([], dtype=np.int64)
    people = People(PackedImages(tmp_path / "x.npy", torch.device("cpu")), rows, none, none, rows.astype(str))
    settings = ModelSettings(network="plain", width=4, latent="vector", latent_size=3)
    level = LevelCVAE(settings, 16, True, half_scale())
    found = tera_flops(Cascade([level]), people, 10) * 1e12 / 10
    # A convolution or a product: two operations a weight and output, once forward and, for weights and input, twice
    # backward; the first convolution's input has no gradient.
    layers = {"first": 25 * 3 * 4 * 64, "second": 25 * 4 * 8 * 16, "out": 8 * 16 * 6, "in": 3 * 8 * 16}
    up = 25 * 8 * 4 * 16 + 25 * 4 * 4 * 64 + 25 * 4 * 3 * 256
    assert found == pytest.approx(2 * (3 * (sum(layers.values()) + up) - layers["first"]))
    assert all(p.grad is None for p in level.parameters())
    finer = LevelCVAE(settings, 16, False, half_scale())
    coarse = LevelCVAE(settings, 8, True, half_scale())
    both = tera_flops(Cascade([finer, coarse]), people, 10)
    assert both > tera_flops(Cascade([level]), people, 10)
