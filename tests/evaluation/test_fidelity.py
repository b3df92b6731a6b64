import numpy as np
import pytest
import torch

from lapcvae.evaluation import fidelity


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def test_rmse_is_on_the_0_255_scale(x: torch.Tensor) -> None:
    grey = torch.full_like(x, 0.5)
    np.testing.assert_allclose(fidelity.rmse(grey, grey + 10 / 255), [10, 10, 10], rtol=1e-5)
    np.testing.assert_allclose(fidelity.psnr_db(np.array([25.5])), [20.0])


def test_reconstructions_are_clipped_as_pictures_are() -> None:
    white = torch.ones(1, 3, 16, 16)
    assert fidelity.rmse(white, white + 0.3)[0] == 0


def test_the_two_means_of_errors_differ() -> None:
    summary = fidelity.rmse_summary(np.array([3.0, 4.0]))
    assert summary == {"mean": 3.5, "std": 0.5, "root_of_mean": pytest.approx(np.sqrt(12.5))}


def test_ssim_falls_with_blur_and_is_one_for_the_same(x: torch.Tensor) -> None:
    blurred = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
    np.testing.assert_allclose(fidelity.ssim(x, x), 1)
    assert (fidelity.ssim(x, blurred) < 0.9).all()


@pytest.mark.parametrize(("side", "scales"), [(16, 1), (32, 2), (64, 3), (128, 4), (256, 5)])
def test_small_images_have_fewer_scales(side: int, scales: int) -> None:
    assert fidelity.ms_ssim_scales(side) == scales


@pytest.mark.parametrize("side", [24, 64])
def test_ms_ssim_falls_with_blur_and_is_one_for_the_same(side: int) -> None:
    x = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(x, 3, stride=1, padding=1)
    np.testing.assert_allclose(fidelity.ms_ssim(x, x), 1, atol=1e-5)
    found = fidelity.ms_ssim(x, blurred)
    assert found.shape == (3,)
    assert (found < 0.9).all()
    # Coarse scales of a blurred picture are nearly whole: a measure of several scales sees more of it.
    assert (found > fidelity.ssim(x, blurred)).all()
    np.testing.assert_allclose(fidelity.ms_ssim(x[:1], blurred[:1]), found[:1], rtol=1e-5)
