from collections.abc import Callable

import pytest
import torch

from lapcvae.models.cascade import Cascade
from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import scale_of
from lapcvae.models.settings import ModelSettings

STATISTICS = {
    str(k): {"mean": [0.5, 0.45, 0.4], "std": [0.2, 0.2, 0.2], "band_std": band}
    for k, band in {1: 0.04, 2: 0.05, 3: 0.2}.items()
}


@pytest.fixture
def cascade() -> Callable[..., Cascade]:
    """Make an untrained cascade of 64, 32, 16 px whose weights are all away from zero."""

    def make(**settings: object) -> Cascade:
        torch.manual_seed(0)
        chosen = ModelSettings(**{"width": 16, "latent_size": 3, **settings})  # type: ignore[arg-type]
        levels = [LevelCVAE(chosen, 64 // 2**k, k == 2, scale_of(STATISTICS, k + 1, 3)) for k in range(3)]
        for level in levels:
            for parameter in level.parameters():
                torch.nn.init.normal_(parameter, std=0.05) if parameter.ndim > 1 else None
        return Cascade(levels).eval()

    return make


@pytest.fixture
def faces() -> torch.Tensor:
    """Smooth random images, B 3 64 64 on [0, 1]."""
    noise = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    return torch.nn.functional.interpolate(noise, size=64, mode="bilinear")
