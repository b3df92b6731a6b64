import pytest
import torch

from lapcvae.models.mobilenet import MobileNetV2, load_mobilenet
from lapcvae.models.perceptual import METRIC, perceptual_distance


@pytest.fixture(scope="module")
def network() -> MobileNetV2:
    return load_mobilenet()


def test_it_is_named_by_its_network() -> None:
    assert METRIC == "perceptual_mobilenetv2"


def test_equal_images_are_at_zero_and_worse_ones_farther(network: MobileNetV2, faces: torch.Tensor) -> None:
    noise = torch.randn(faces.shape, generator=torch.Generator().manual_seed(0))
    assert perceptual_distance(network, faces, faces).max() == 0
    near, far = (perceptual_distance(network, faces, faces + amount * noise) for amount in (0.01, 0.1))
    assert (near > 0).all()
    assert (far > near).all()
    assert far.max() <= 4


def test_its_gradient_leads_towards_the_photograph(network: MobileNetV2, faces: torch.Tensor) -> None:
    blurred = torch.nn.functional.avg_pool2d(faces, 5, 1, 2).requires_grad_()
    before = perceptual_distance(network, faces, blurred).sum()
    (gradient,) = torch.autograd.grad(before, blurred)
    after = perceptual_distance(network, faces, blurred - 1e-2 * gradient / gradient.norm()).sum()
    assert after < before
