from collections.abc import Callable

import pytest
import torch

from lapcvae.models.cascade import Cascade
from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import scale_of
from lapcvae.models.settings import ModelSettings
from lapcvae.pyramid.filters import PyramidKind

STATISTICS = {
    str(k): {"mean": [0.5, 0.45, 0.4], "std": [0.2, 0.2, 0.2], "band_std": band}
    for k, band in {1: 0.04, 2: 0.05, 3: 0.2}.items()
}


@pytest.fixture
def cascade() -> Callable[..., Cascade]:
    """Make an untrained cascade of 64, 32, 16 px whose weights are all away from zero."""

    def make(kind: PyramidKind = "burt", side: int = 64, **settings: object) -> Cascade:
        torch.manual_seed(0)
        chosen = ModelSettings(**{"width": 16, "latent_size": 3, **settings})  # type: ignore[arg-type]
        levels: list[LevelCVAE] = []
        for k in (3, 2, 1):
            latents = levels[0].latent_shape if levels else ()
            scale = scale_of(STATISTICS, k, 3, kind)
            levels.insert(0, LevelCVAE(chosen, side // 2 ** (k - 1), k == 3, scale, kind, latents))
        for level in levels:
            for parameter in level.parameters():
                torch.nn.init.normal_(parameter, std=0.05) if parameter.ndim > 1 else None
        return Cascade(levels, kind).eval()

    return make


@pytest.fixture
def faces() -> torch.Tensor:
    """Smooth random images, B 3 64 64 on [0, 1]."""
    noise = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    return torch.nn.functional.interpolate(noise, size=64, mode="bilinear")
