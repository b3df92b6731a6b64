"""The networks of the published table: their layers, their size, and where they may stand."""

import pytest
import torch
from torch import nn

from lapcvae.errors import ConfigError
from lapcvae.models.published import Discriminator
from lapcvae.models.scale import half_scale
from lapcvae.models.settings import ModelSettings, resolve
from lapcvae.models.storage import Description

SETTINGS = ModelSettings(network="published", latent="vector", latent_size=128)


def channels(network: nn.Module, kind: type[nn.Module]) -> list[int]:
    return [m.weight.shape[1 if kind is nn.ConvTranspose2d else 0] for m in network.modules() if isinstance(m, kind)]  # type: ignore[index,union-attr]


def test_the_vae_of_64_px_is_the_published_one() -> None:
    level = Description(1, 1, 64, "burt", SETTINGS, half_scale()).build()
    assert channels(level.encoder, nn.Conv2d) == [64, 128, 256]
    assert channels(level.encoder, nn.Linear) == [1024]
    assert channels(level.renderer, nn.ConvTranspose2d) == [256, 128, 32]
    assert {m.kernel_size for m in level.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)} == {(5, 5)}
    assert sum(p.numel() for p in level.parameters()) == pytest.approx(22.7e6, rel=0.005)
    assert level.latent_shape == (128,)


@pytest.mark.parametrize("side", [16, 32, 64, 128])
def test_its_extensions_go_from_images_to_images(side: int) -> None:
    level = Description(1, 1, side, "burt", SETTINGS, half_scale()).build().eval()
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    posterior = level.encode(x, None, level.prior(None, 2))
    rebuilt = level.decode(posterior.mean, None)
    assert rebuilt.shape == x.shape
    assert rebuilt.min() >= 0
    assert rebuilt.max() <= 1


def test_the_discriminator_has_the_published_channels() -> None:
    discriminator = Discriminator(64)
    assert channels(discriminator, nn.Conv2d) == [32, 128, 256, 256]
    assert channels(discriminator, nn.Linear) == [512, 1]
    features, logits = discriminator(torch.zeros(2, 3, 64, 64))
    assert features.shape == (2, 256, 8, 8)
    assert logits.shape == (2,)


def test_where_it_does_not_fit_is_said() -> None:
    with pytest.raises(ConfigError, match=r"level 1 of 1, 60 px.*power of two"):
        Description(1, 1, 60, "burt", SETTINGS, half_scale()).build()
    with pytest.raises(ConfigError, match=r"level 1 of 2, 64 px.*for `baselines` only"):
        Description(1, 2, 64, "burt", SETTINGS, half_scale()).build()
    with pytest.raises(ConfigError, match="`network: published` has `latent: vector`"):
        resolve({}, {"network": "published", "latent": "spatial"}, "baselines.vae.model")
