from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lapcvae.data.batches import PackedImages
from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import scale_of
from lapcvae.models.settings import ModelSettings
from lapcvae.pyramid.laplacian import PyramidConfig
from lapcvae.pyramid.stored import StoredPyramid, read_pyramid, write_pyramid
from lapcvae.training.arrays import LevelArrays
from lapcvae.training.rebuild import write_rebuilt
from lapcvae.training.settings import TrainingSettings

CPU = torch.device("cpu")


@dataclass
class Small:
    """A pyramid of 32 and 16 px with 40 smooth images, and what is needed to train on it."""

    folder: Path
    stored: StoredPyramid
    rows: dict[str, np.ndarray]
    training: TrainingSettings

    def level(self, k: int, **settings: object) -> LevelCVAE:
        """An untrained level."""
        torch.manual_seed(k)
        chosen = ModelSettings(**{"width": 16, "latent_size": 2, "latent_grid": 4, **settings})  # type: ignore[arg-type]
        return LevelCVAE(chosen, 32 // k, k == 2, scale_of(self.stored.statistics, k, 2))

    def arrays(self, k: int, coarser: LevelCVAE | None = None) -> LevelArrays:
        """What level k trains from; level 1 needs level 2, run and written as the pipeline does."""
        own = PackedImages(self.folder / f"x{k}.npy", CPU)
        if coarser is None:
            return LevelArrays(own)
        rebuilt = self.folder / "rebuilt"
        rebuilt.mkdir(exist_ok=True)
        write_rebuilt(coarser.eval(), self.arrays(2), "burt", rebuilt)
        return LevelArrays(
            own,
            PackedImages(rebuilt / "image.npy", CPU),
            PackedImages(rebuilt / "mean.npy", CPU),
            float(coarser.log_sigma),
        )


@pytest.fixture
def small(tmp_path: Path) -> Small:
    noise = torch.rand(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(noise, size=32, mode="bicubic").clamp(0, 1)
    images = (x * 255).byte().permute(0, 2, 3, 1).numpy()
    splits = ["train"] * 30 + ["val"] * 5 + ["test"] * 5
    write_pyramid(images, splits, PyramidConfig(coarsest=16), tmp_path / "pyramid")
    stored, rows = read_pyramid(tmp_path / "pyramid")
    settings = TrainingSettings(
        updates=30, batch=8, log_interval=10, warmup_updates=5, precision="fp32", learning_rate=3e-3
    )
    return Small(tmp_path / "pyramid", stored, rows, settings)
