import tarfile
from pathlib import Path

import pytest
import torch

from lapcvae.models.cascade import Cascade
from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import scale_of
from lapcvae.models.settings import ModelSettings
from lapcvae.models.storage import Description, save_level

SAMPLE = Path(__file__).parents[2] / "data" / "samples" / "lfw-sample.tgz"
SETTINGS = ModelSettings(width=16, latent_size=3)
STATISTICS = {
    str(k): {"mean": [0.5, 0.45, 0.4], "std": [0.2, 0.2, 0.2], "band_std": band}
    for k, band in {1: 0.04, 2: 0.05, 3: 0.2}.items()
}


def _levels() -> list[LevelCVAE]:
    """Untrained levels of 64, 32, 16 px whose weights are all away from zero."""
    torch.manual_seed(0)
    levels = [LevelCVAE(SETTINGS, 64 // 2**k, k == 2, scale_of(STATISTICS, k + 1, 3)) for k in range(3)]
    for level in levels:
        for parameter in level.parameters():
            torch.nn.init.normal_(parameter, std=0.05) if parameter.ndim > 1 else None
    return levels


@pytest.fixture
def model() -> Cascade:
    return Cascade(_levels()).eval()


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in a folder."""
    folder = tmp_path_factory.mktemp("models")
    for k, level in enumerate(_levels(), 1):
        (folder / f"level{k}").mkdir()
        description = Description(k, 3, level.side, "burt", SETTINGS, scale_of(STATISTICS, k, 3))
        save_level(level, description, folder / f"level{k}")
    return folder


@pytest.fixture
def faces() -> torch.Tensor:
    """Smooth random images, 2 3 64 64, multiples of 1/255."""
    noise = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    return (torch.nn.functional.interpolate(noise, size=64, mode="bilinear") * 255).round() / 255


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twelve real photographs of people, one a person, in folders that name them."""
    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    with tarfile.open(SAMPLE) as tar:
        while len(paths) < 12:
            member = tar.next()
            assert member is not None
            if member.isfile():
                path = folder / Path(member.name).parent.name / Path(member.name).name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
                paths.append(path)
    return paths
