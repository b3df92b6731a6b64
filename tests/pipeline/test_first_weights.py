"""What a level begins with: the champion's weights where they are laid out and fit, random ones else."""

from pathlib import Path

import pytest
import torch

from lapcvae.errors import ModelError
from lapcvae.io.atomic import write_json
from lapcvae.models.level import LevelCVAE, LevelScale
from lapcvae.models.settings import ModelSettings
from lapcvae.models.storage import WEIGHTS, Description, save_level
from pipelines.first_weights import CHAMPION, ORIGIN, FirstWeights, put_first_weights


def _level(width: int, seed: int) -> tuple[LevelCVAE, Description]:
    scale = LevelScale((0.5, 0.4, 0.3), 0.2, (0.5, 0.4, 0.3), 0.2)
    described = Description(1, 1, 16, "burt", ModelSettings(width=width, latent="vector", latent_size=4), scale)
    torch.manual_seed(seed)
    return described.build(), described


@pytest.fixture
def champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LevelCVAE:
    """A champion of one level, 8 channels wide, laid out in an otherwise empty project."""
    monkeypatch.chdir(tmp_path)
    level, described = _level(8, 0)
    save_level(level, described, CHAMPION / "level1")
    write_json(CHAMPION / ORIGIN, {"model": "faces", "version": 4})
    return level


def test_the_champions_weights_where_they_fit(champion: LevelCVAE) -> None:
    model, _ = _level(8, 1)
    begun = put_first_weights(model, "level1", "")
    assert begun == FirstWeights("faces version 4", [CHAMPION / "level1" / WEIGHTS])
    for name, value in champion.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(("width", "name"), [(16, "level1"), (8, "level2"), (8, "vae")])
def test_random_ones_where_they_do_not_fit_or_are_not_there(champion: LevelCVAE, width: int, name: str) -> None:
    model, before = _level(width, 1)[0], _level(width, 1)[0]
    assert put_first_weights(model, name, "") == FirstWeights()
    for key, value in before.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=0, atol=0)


def test_those_that_params_yaml_names_go_before_the_champions(champion: LevelCVAE) -> None:
    other, described = _level(8, 2)
    save_level(other, described, Path("other"))
    model, _ = _level(8, 1)
    assert put_first_weights(model, "level1", "other") == FirstWeights("other", [Path("other", WEIGHTS)])
    for name, value in other.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)


def test_a_damaged_champion_is_an_error(champion: LevelCVAE) -> None:
    weights = CHAMPION / "level1" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"champion/level1/weights\.safetensors: not a whole"):
        put_first_weights(_level(8, 1)[0], "level1", "")
