import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch

from lapcvae.errors import RegistryError
from lapcvae.models.level import LevelScale
from lapcvae.models.settings import ModelSettings
from lapcvae.models.storage import Description, load_cascade, save_level
from lapcvae.registry import models, tracking
from lapcvae.registry.store import open_client

ZERO = (0.0, 0.0, 0.0)
TAGS = {"data_digest": "ab" * 32, "primary_value": "17.5"}


def _pyramid(folder: Path, seed: int) -> list[Path]:
    """Folders of levels 1 and 2 of an untrained pyramid of 16 and 8 pixels."""
    torch.manual_seed(seed)
    settings = ModelSettings(width=8, latent="vector", latent_size=2)
    folders = []
    for level, side in ((1, 16), (2, 8)):
        description = Description(level, 2, side, "burt", settings, LevelScale(ZERO, 0.2, ZERO, 0.2, ZERO, 0.2))
        folders.append(folder / f"level{level}")
        save_level(description.build(), description, folders[-1])
    return folders


@pytest.fixture
def levels(project: Path) -> list[Path]:
    return _pyramid(project / "models", seed=0)


def _finish() -> str:
    return tracking.finish_pipeline({"lapcvae": {"rmse": {"mean": 17.5}}}, [], {})


def test_version_is_found_by_its_alias_and_loads_whole(levels: list[Path], tmp_path: Path) -> None:
    run_id = _finish()
    registered = models.register("faces", levels, run_id, TAGS)
    assert registered == models.Registered("faces", 1, run_id, is_new=True)
    version = open_client().get_model_version_by_alias("faces", "current")
    assert version.run_id == run_id
    assert version.tags.items() >= TAGS.items()

    fetched = models.fetch("faces", "current", tmp_path / "fetched")
    assert [folder.name for folder in fetched] == ["level1", "level2"]
    for ours, theirs in zip(
        load_cascade(levels).state_dict().values(), load_cascade(fetched).state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_equal_weights_are_one_version_and_current_returns_to_it(levels: list[Path], tmp_path: Path) -> None:
    first = models.register("faces", levels, _finish(), TAGS)
    other = models.register("faces", _pyramid(tmp_path / "other", seed=1), _finish(), TAGS)
    again = models.register("faces", _pyramid(tmp_path / "again", seed=0), _finish(), TAGS)
    assert (first.version, other.version, again.version) == (1, 2, 1)
    assert again.run_id == first.run_id
    assert not again.is_new
    client = open_client()
    assert len(client.search_model_versions("name = 'faces'")) == 2
    assert client.get_registered_model("faces").aliases == {"current": 1, "champion": 1}


def test_champion_is_only_chosen_where_there_is_none(levels: list[Path], tmp_path: Path) -> None:
    models.register("faces", levels, _finish(), TAGS)
    models.register("faces", _pyramid(tmp_path / "other", seed=1), _finish(), TAGS)
    assert open_client().get_registered_model("faces").aliases == {"current": 2, "champion": 1}


def test_registering_goes_on_after_an_interruption(levels: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = _finish()
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.set_registered_model_alias", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            models.register("faces", levels, run_id, TAGS)
    assert models.register("faces", levels, run_id, TAGS).version == 1
    assert open_client().get_registered_model("faces").aliases == {"current": 1, "champion": 1}


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_damaged_files_are_not_handed_out(levels: list[Path], tmp_path: Path) -> None:
    registered = models.register("faces", levels, _finish(), TAGS)
    source = Path(open_client().get_model_version("faces", "1").source)
    weights = source / "level2" / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RegistryError, match=r"faces version 1: its files at .* are damaged"):
        models.fetch("faces", str(registered.version), tmp_path / "fetched")
    shutil.rmtree(source)
    with pytest.raises(RegistryError, match="faces"):
        models.fetch("faces", "1", tmp_path / "fetched again")


def test_unknown_version_is_named(levels: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="faces"):
        models.fetch("faces", "champion", tmp_path / "fetched")


def test_registry_away_is_an_error_that_says_what_to_do(levels: list[Path]) -> None:
    run_id = _finish()
    with closing(sqlite3.connect("mlflow.db")) as database:
        database.execute("DROP TABLE model_versions")
    with pytest.raises(RegistryError, match=r"sqlite:///.*models/ are whole.*run the same command again"):
        models.register("faces", levels, run_id, TAGS)


def test_params_digest_ignores_order_and_notices_values() -> None:
    one = models.params_digest({"seed": 0, "levels": {"1": {"updates": 5}}})
    assert one == models.params_digest({"levels": {"1": {"updates": 5}}, "seed": 0})
    assert one != models.params_digest({"levels": {"1": {"updates": 6}}, "seed": 0})
