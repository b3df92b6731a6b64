from pathlib import Path

import pytest

from bench.rate_distortion import at_equal_rates, varied
from lapcvae.config import read_params

PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")


def row(model: str, rate: float, error: float) -> dict:
    return {"model": model, "rate_nats": rate, "rmse_255": error}


def test_models_are_compared_at_equal_rates_only() -> None:
    rows = [row("lapcvae", r, 20 - r / 100) for r in (300, 900, 1200)] + [
        row("vae", r, 24 - r / 100) for r in (100, 700)
    ]
    found = at_equal_rates(rows, "lapcvae", "vae", 3)
    assert [point["rate_nats"] for point in found] == [300, 500, 700]
    for point in found:
        assert point["vae"] - point["lapcvae"] == pytest.approx(4)
        assert point["ratio"] == pytest.approx(point["lapcvae"] / point["vae"])
    apart = [row("lapcvae", r, 9) for r in (10, 20)] + [row("vae", r, 9) for r in (30, 40)]
    assert at_equal_rates(apart, "lapcvae", "vae") == []


def test_a_point_changes_one_thing_in_every_model() -> None:
    found = varied(PARAMS, "kl_weight", 2.0, 0.1)
    for section in ("levels", "baselines"):
        for name, job in found[section].items():
            assert job["model"]["kl_weight"] == 2.0
            assert job["updates"] == round(PARAMS[section][name]["updates"] * 0.1)
    wider = varied(PARAMS, "latent_size", 2.0, 1.0)
    assert wider["levels"]["1"]["model"]["latent_size"] == 2 * PARAMS["levels"]["1"]["model"]["latent_size"]
    for section in ("levels", "baselines"):
        for job in wider[section].values():
            assert "kl_weight" not in job["model"]
    assert wider["training"] == PARAMS["training"]
