import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lapcvae.evaluation import detail
from lapcvae.pyramid.laplacian import build


@pytest.fixture
def x() -> torch.Tensor:
    noise = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return 0.25 + 0.5 * F.avg_pool2d(noise, 3, stride=1, padding=1)


def test_sharpness_is_opencvs_variance_of_the_laplacian(x: torch.Tensor) -> None:
    import cv2

    for image, found in zip(x, detail.sharpness(x), strict=True):
        grey = cv2.cvtColor((image * 255).permute(1, 2, 0).numpy(), cv2.COLOR_RGB2GRAY)
        expected = cv2.Laplacian(grey, cv2.CV_32F)[1:-1, 1:-1].var()  # OpenCV also makes up a border
        assert found == pytest.approx(float(expected), rel=1e-4)


def test_a_picture_is_as_detailed_as_itself(x: torch.Tensor) -> None:
    for name, ratio in detail.ratios(x, x).items():
        np.testing.assert_allclose(ratio, 1, err_msg=name)
    assert set(detail.ratios(x, x)) == {"sharpness_ratio", "band_px64", "band_px32", "band_px16"}


def test_blur_costs_fine_bands_most(x: torch.Tensor) -> None:
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    found = detail.ratios(blurred, x)
    means = [found[name].mean() for name in ("band_px64", "band_px32", "band_px16")]
    assert means == sorted(means)
    assert means[0] < 0.5
    assert found["sharpness_ratio"].mean() < 0.3


def test_twice_the_contrast_is_four_times_the_energy(x: torch.Tensor) -> None:
    weak = 0.5 + (x - 0.5) / 2
    for name, ratio in detail.ratios(x, weak).items():
        np.testing.assert_allclose(ratio, 4, rtol=1e-4, err_msg=name)
    expected = (build(x.double() * 255, 4)[0]).square().mean((1, 2, 3))
    np.testing.assert_allclose(detail.band_energies(x)["px64"], expected.numpy())


@pytest.mark.parametrize(("side", "bands"), [(64, [64, 32, 16]), (128, [128, 64, 32, 16]), (48, [48, 24]), (8, [])])
def test_bands_are_the_same_for_every_model(side: int, bands: list[int]) -> None:
    assert detail.band_sides(side) == bands


def test_sets_are_compared_by_their_means(x: torch.Tensor) -> None:
    found = detail.set_ratios(torch.cat([x, x]), x)
    assert found["sharpness_ratio"] == pytest.approx(1)
    assert found["band_energy_ratio"] == pytest.approx({"px64": 1, "px32": 1, "px16": 1})
    assert detail.set_ratios(x * 0 + 0.5, x)["sharpness_ratio"] == pytest.approx(0)
