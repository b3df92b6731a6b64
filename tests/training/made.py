"""What the tests of training are given: a small pyramid, levels on it, and a trainable of two parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import half_scale, scale_of
from lapcvae.models.settings import ModelSettings
from lapcvae.pyramid.filters import PyramidKind
from lapcvae.pyramid.laplacian import PyramidConfig
from lapcvae.pyramid.stored import StoredPyramid, read_pyramid, write_pyramid
from lapcvae.training.arrays import LevelArrays, LevelData, open_arrays
from lapcvae.training.rebuild import write_rebuilt
from lapcvae.training.settings import TrainingSettings
from lapcvae.training.trainable import LevelTraining, Terms, Trainable
from lapcvae.training.vae_gan import VaeGanTraining

CPU = torch.device("cpu")
STYLES: dict[str, dict[str, Any]] = {
    "spatial": {},
    "vector, free bits": {"latent": "vector", "free_bits": 0.1, "kl_warmup": 20},
    "batch norm": {"network": "plain", "latent": "vector"},
}


@dataclass
class Small:
    """A pyramid of 32 and 16 px with 40 smooth images, and what is needed to train on it."""

    folder: Path
    stored: StoredPyramid
    rows: dict[str, np.ndarray]
    training: TrainingSettings
    device: torch.device = CPU

    @property
    def kind(self) -> PyramidKind:
        """Its filters."""
        return self.stored.kind

    def level(self, k: int, **settings: object) -> LevelCVAE:
        """An untrained level; level 1 is for a level 2 of 2 x 4 x 4 latents."""
        torch.manual_seed(k)
        chosen = ModelSettings(**{"width": 16, "latent_size": 2, "latent_grid": 4, **settings})  # type: ignore[arg-type]
        scale = scale_of(self.stored.statistics, k, 2, self.kind)
        return LevelCVAE(chosen, 32 // k, k == 2, scale, self.kind, () if k == 2 else (2, 4, 4)).to(self.device)

    def trainable(self, k: int, **settings: object) -> LevelTraining:
        """An untrained level on its arrays; level 1 on those of an untrained level 2."""
        return LevelTraining(self.level(k, **settings), self.arrays(k, self.level(2) if k == 1 else None), self.kind)

    def data(self, k: int, settings: ModelSettings, coarser: LevelCVAE | None = None) -> LevelData:
        """What level k trains from; level 1 may have level 2, run and written as the pipeline does."""
        after = self.folder / "pyramid.json"
        if coarser is not None:
            after = self.folder / "rebuilt"
            after.mkdir(exist_ok=True)
            write_rebuilt(coarser.eval(), self.arrays(2), self.kind, after)
        return open_arrays(k, 2, settings, self.folder, after, self.device)

    def arrays(self, k: int, coarser: LevelCVAE | None = None) -> LevelArrays:
        """The arrays of a level whose `condition` is `rebuilt`."""
        return self.data(k, ModelSettings(), coarser).training


def make_small(folder: Path, kind: PyramidKind = "burt") -> Small:
    """Write the pyramid into a new folder."""
    noise = torch.rand(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(noise, size=32, mode="bicubic").clamp(0, 1)
    images = (x * 255).byte().permute(0, 2, 3, 1).numpy()
    splits = ["train"] * 30 + ["val"] * 5 + ["test"] * 5
    write_pyramid(images, splits, PyramidConfig(kind, 16), folder / "pyramid")
    stored, rows = read_pyramid(folder / "pyramid")
    settings = TrainingSettings(
        updates=30, batch=8, log_interval=10, warmup_updates=5, precision="fp32", learning_rate=3e-3
    )
    return Small(folder / "pyramid", stored, rows, settings)


class Toy(Trainable):
    """Two parts with losses of their own, like a generator and its critic: each follows only its own."""

    def __init__(self, arrays: LevelArrays) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.arrays = arrays
        self.maker, self.critic = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 1, 3)

    def parts(self) -> Mapping[str, list[nn.Parameter]]:
        """The maker and the critic."""
        return {"maker": list(self.maker.parameters()), "critic": list(self.critic.parameters())}

    def noise_shapes(self) -> list[tuple[int, ...]]:
        """An image of noise."""
        return [(3, 16, 16)]

    def pick(self, rows: np.ndarray, flips: np.ndarray) -> tuple[Tensor, ...]:
        """Images."""
        return self.arrays.pick(rows, flips)

    def forward(self, packed: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Terms:
        """How the critic judges what is made and what is real."""
        x, _ = self.arrays.unpack(packed)
        made = self.maker(noise[0])
        return {
            "rate_nats": torch.zeros(()),
            "distortion_nats": (x - made).square().sum((1, 2, 3)).mean(),
            "made": self.critic(made).mean(),
            "real": self.critic(x).tanh().mean(),
        }

    def losses(self, batch_terms: Terms, update: int) -> Mapping[str, Tensor]:
        """The maker wants to be near and liked, the critic to tell apart."""
        judged = batch_terms["made"].tanh() - batch_terms["real"]
        return {"maker": batch_terms["distortion_nats"] / 768 - batch_terms["made"], "critic": judged}

    def dimensions(self) -> int:
        """Of a 16 px image."""
        return 768


def vae_gan(small: Small) -> VaeGanTraining:
    """An untrained VAE/GAN of the 16 px images."""
    torch.manual_seed(0)
    settings = ModelSettings(network="published", latent="vector", latent_size=8, residual_posterior=False)
    return VaeGanTraining(LevelCVAE(settings, 16, True, half_scale()).to(small.device), small.arrays(2))
