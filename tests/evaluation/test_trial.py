"""What the gate measures a photograph, with the real feature network on real photographs."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lapcvae.data.batches import PackedImages
from lapcvae.evaluation import networks, trial
from lapcvae.models.cascade import Cascade
from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import scale_of
from lapcvae.models.settings import ModelSettings

STATISTICS = {"1": {"mean": [0.5, 0.45, 0.4], "std": [0.2, 0.2, 0.2], "band_std": 0.2}}
TEST, VAL = np.arange(0, 6), np.arange(6, 10)


@pytest.fixture(scope="module")
def network() -> Any:
    found = networks.open_network(torch.device("cpu"))
    if found is None:
        pytest.skip(networks.ABSENT)
    return found


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> PackedImages:
    found: list[np.ndarray] = []
    with tarfile.open(Path(__file__).parents[2] / "data/samples/lfw-sample.tgz") as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None and len(found) < 10:
                picture = Image.open(io.BytesIO(stream.read())).convert("RGB")
                found.append(np.asarray(picture.resize((32, 32))))
    path = tmp_path_factory.mktemp("trial") / "x1.npy"
    np.save(path, np.stack(found))
    return PackedImages(path, torch.device("cpu"))


@pytest.fixture(scope="module")
def model() -> Cascade:
    torch.manual_seed(0)
    settings = ModelSettings(width=16, latent_size=2, latent_grid=4)
    return Cascade([LevelCVAE(settings, 32, True, scale_of(STATISTICS, 1, 1))]).eval()


def test_feature_distance_is_nothing_for_the_same_picture_and_grows_with_blur(
    network: Any, photographs: PackedImages
) -> None:
    def blurred(x: Tensor, factor: int) -> Tensor:
        return F.interpolate(F.avg_pool2d(x, factor), size=x.shape[-2:], mode="bilinear")

    x = photographs.gather(TEST, np.zeros_like(TEST))
    same, some, much = (trial._feature_distances(network, x, y) for y in (x, blurred(x, 2), blurred(x, 8)))
    assert same.shape == (6,)
    assert same.max() < 1e-9
    assert (some > 0.001).all()
    assert much.mean() > 1.5 * some.mean()
    assert much.max() <= 4


def test_it_is_a_column_beside_the_others(network: Any, photographs: PackedImages, model: Cascade) -> None:
    found = trial.measure(model, photographs, TEST, VAL, 4, 0, network)
    assert found.absent == {}
    x = photographs.gather(TEST, np.zeros_like(TEST))
    rebuilt = model.reconstruct(x)[0].rebuilt.clamp(0, 1)
    by_hand = trial._feature_distances(network, x, rebuilt).detach()
    np.testing.assert_allclose(found.columns[trial.FEATURE_DISTANCE], by_hand, rtol=1e-4)
    assert {len(values) for values in found.columns.values()} == {6}


def test_without_the_network_it_is_absent_and_nothing_stands_in_for_it(
    photographs: PackedImages, model: Cascade
) -> None:
    found = trial.measure(model, photographs, TEST, VAL, 4, 0, None)
    assert found.absent == {trial.FEATURE_DISTANCE: networks.ABSENT}
    assert trial.FEATURE_DISTANCE not in found.means()
    assert set(found.columns) == {"rmse_posterior_mean", "bits_per_dim", "dissimilarity", "sharpness_error"}
