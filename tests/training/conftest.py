from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import scale_of
from lapcvae.models.settings import ModelSettings
from lapcvae.pyramid.filters import PyramidKind
from lapcvae.pyramid.laplacian import PyramidConfig
from lapcvae.pyramid.stored import StoredPyramid, read_pyramid, write_pyramid
from lapcvae.training.arrays import LevelArrays, LevelData, open_arrays
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

    @property
    def kind(self) -> PyramidKind:
        """Its filters."""
        return self.stored.kind

    def level(self, k: int, **settings: object) -> LevelCVAE:
        """An untrained level; level 1 is for a level 2 of 2 x 4 x 4 latents."""
        torch.manual_seed(k)
        chosen = ModelSettings(**{"width": 16, "latent_size": 2, "latent_grid": 4, **settings})  # type: ignore[arg-type]
        scale = scale_of(self.stored.statistics, k, 2, self.kind)
        return LevelCVAE(chosen, 32 // k, k == 2, scale, self.kind, () if k == 2 else (2, 4, 4))

    def data(self, k: int, settings: ModelSettings, coarser: LevelCVAE | None = None) -> LevelData:
        """What level k trains from; level 1 may have level 2, run and written as the pipeline does."""
        after = self.folder / "pyramid.json"
        if coarser is not None:
            after = self.folder / "rebuilt"
            after.mkdir(exist_ok=True)
            write_rebuilt(coarser.eval(), self.arrays(2), self.kind, after)
        return open_arrays(k, 2, settings, self.folder, after, CPU)

    def arrays(self, k: int, coarser: LevelCVAE | None = None) -> LevelArrays:
        """The arrays of a level whose `condition` is `rebuilt`."""
        return self.data(k, ModelSettings(), coarser).training


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return make_small(tmp_path)


def make_small(tmp_path: Path, kind: PyramidKind = "burt") -> Small:
    """The pyramid of that kind in a folder of its own."""
    noise = torch.rand(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(noise, size=32, mode="bicubic").clamp(0, 1)
    images = (x * 255).byte().permute(0, 2, 3, 1).numpy()
    splits = ["train"] * 30 + ["val"] * 5 + ["test"] * 5
    write_pyramid(images, splits, PyramidConfig(kind, 16), tmp_path / "pyramid")
    stored, rows = read_pyramid(tmp_path / "pyramid")
    settings = TrainingSettings(
        updates=30, batch=8, log_interval=10, warmup_updates=5, precision="fp32", learning_rate=3e-3
    )
    return Small(tmp_path / "pyramid", stored, rows, settings)
