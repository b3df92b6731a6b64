"""All measures of two models on the same people, and what stands in the table and on the page."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lapcvae.data.batches import PackedImages
from lapcvae.evaluation import sheets, table
from lapcvae.evaluation.evaluate import EvaluationConfig
from lapcvae.evaluation.features import FeatureNetwork
from lapcvae.evaluation.measured import Measured, measure_all
from lapcvae.evaluation.networks import MobileNetFeatures, open_network
from lapcvae.evaluation.people import People
from lapcvae.models import mobilenet
from lapcvae.models.cascade import Cascade
from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import scale_of
from lapcvae.models.settings import ModelSettings

STATISTICS = {
    str(k): {"mean": [0.5, 0.45, 0.4], "std": [0.2, 0.2, 0.2], "band_std": band}
    for k, band in {1: 0.04, 2: 0.2}.items()
}
CONFIG = EvaluationConfig(batch=7)


class Projection:
    """A network of one random layer, small enough for tests; never a measure of anything."""

    name = "projection"

    def features(self, x: Tensor) -> Tensor:
        weights = torch.randn(3 * 32 * 32, 20, generator=torch.Generator().manual_seed(0)) / 30
        return x.flatten(1) @ weights


@pytest.fixture
def people(tmp_path: Path) -> People:
    noise = torch.rand(48, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(noise, size=32, mode="bilinear")
    np.save(tmp_path / "x1.npy", (x * 255).round().byte().permute(0, 2, 3, 1).numpy())
    photographs = PackedImages(tmp_path / "x1.npy", torch.device("cpu"))
    names = np.array([f"person{i // 2}" for i in range(48)])
    return People(photographs, np.arange(16), np.arange(16, 28), np.arange(28, 48), names)


def cascade(seed: int, output: float) -> Cascade:
    torch.manual_seed(seed)
    settings = ModelSettings(width=16, latent_size=2, latent_grid=4)
    levels = [LevelCVAE(settings, 32 // k, k == 2, scale_of(STATISTICS, k, 2)) for k in (1, 2)]
    for level in levels:
        torch.nn.init.normal_(level.renderer.smooth.weight, std=output)  # type: ignore[union-attr, arg-type]
    return Cascade(levels).eval()


def measured(people: People, network: FeatureNetwork | None) -> dict[str, Measured]:
    return measure_all({"lapcvae": cascade(0, 0.05), "vae": cascade(1, 0.6)}, people, network, CONFIG, 0)


def test_everything_is_measured_and_says_of_what(people: People) -> None:
    found = measured(people, Projection())
    for done in found.values():
        m = done.metrics
        assert m["people"] == 8
        assert m["photographs"] == 16
        for name in ("kd_projection", "fd_projection"):
            assert m[name]["n"] == 12  # as many as the smaller of the two sets of people
            assert set(m[name]) == {"n", "floor", "reconstructions", "samples"}
        kernel = m["kd_projection"]["samples"]
        assert kernel["ci95_low"] <= kernel["value"] <= kernel["ci95_high"]
        assert set(m["nearest_training"]) == {
            "samples_median", "reconstructions_median", "held_out_median", "repeated_share",
        }  # fmt: skip
        assert m["samples"]["n"] == len(done.pictures.samples) == 12
        assert set(m["band_energy_ratio"]) == set(m["samples"]["band_energy_ratio"]) == {"px32", "px16"}
        for level in m["levels"].values():
            assert 0.1 <= level["rate_in_top_tenth"] <= 1
            assert level["active_share"] == level["active_units"] / level["latents"]
    ours, other = found["lapcvae"], found["vae"]
    against = ours.metrics["against"]["vae"]
    assert "against" not in other.metrics
    expected = ours.images["rmse_posterior_mean"].mean() - other.images["rmse_posterior_mean"].mean()
    assert against["rmse_posterior_mean"]["mean"] == pytest.approx(expected)
    kernels = [done.metrics["kd_projection"]["samples"]["value"] for done in (ours, other)]
    assert against["kd_projection"]["samples"]["mean"] == pytest.approx(kernels[0] - kernels[1])
    # The wild model's samples are far from people, and are known to be.
    assert against["kd_projection"]["samples"]["ci95_high"] < 0
    assert measured(people, Projection())["lapcvae"].metrics == ours.metrics


def test_without_a_network_distances_are_absent(people: People) -> None:
    found = measured(people, None)["lapcvae"].metrics
    assert not [key for key in found if "kd_" in key or "fd_" in key]
    assert not [key for key in found["against"]["vae"] if "kd_" in key]
    assert table.distance_rows({"lapcvae": found}) == []
    assert not any("kd_" in line[0] for line in table.difference_rows({"lapcvae": found}))


def test_tables_have_a_line_for_every_model(people: People) -> None:
    metrics = {name: done.metrics for name, done in measured(people, Projection()).items()}
    lines = table.distance_rows(metrics)
    assert lines[0] == ["", "kd_projection, n = 12", "fd_projection, n = 12"]
    assert [line[0] for line in lines[1:]] == [
        "other people (floor)", "reconstructions: lapcvae", "reconstructions: vae", "samples: lapcvae", "samples: vae",
    ]  # fmt: skip
    assert [len(line) for line in table.band_rows(metrics)] == [6, 6, 6]
    differences = {line[0]: line[1] for line in table.difference_rows(metrics)}
    assert " to " in differences["sqrt(MSE)"]


def test_two_sets_share_no_person(people: People) -> None:
    first, second = people.two_sets(5)
    assert len(first) == len(second) == 5
    assert set(first) <= set(people.test)
    assert set(second) <= set(people.calibration)
    alone = replace(people, calibration=np.array([], dtype=int))
    first, second = alone.two_sets(100)
    assert len(first) == len(second) == 8
    assert not set(people.names[first]) & set(people.names[second])
    one = replace(alone, names=np.array(["one"] * 48))
    assert len(one.two_sets(100)[1]) == 0
    assert not [key for key in measured(one, Projection())["vae"].metrics if "kd_" in key]


def test_nearest_photographs_are_shown_below_samples(people: People) -> None:
    done = measured(people, None)["lapcvae"].pictures
    assert done.neighbours is not None
    picture = sheets.nearest(done.samples, done.neighbours, people.photographs)
    assert picture.shape == (2 * 98 + 2, 10 * 98 + 2, 3)


def test_the_real_network_sees_blur_as_distance(people: People) -> None:
    if open_network(torch.device("cpu")) is None:
        pytest.skip(f"{mobilenet.PACKAGE} is not installed")
    network = MobileNetFeatures(torch.device("cpu"))
    x = people.photographs.gather(people.test, np.zeros_like(people.test))
    found = network.features(x)
    assert found.shape == (16, mobilenet.POOLED)
    blurred = torch.nn.functional.avg_pool2d(x, 7, stride=1, padding=3)
    near, far = network.features(x + 1 / 255), network.features(blurred)
    assert (found - near).square().sum() < 0.1 * (found - far).square().sum()
