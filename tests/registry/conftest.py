"""A real MLflow store for every test: a copy of one empty database, made once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lapcvae.models.level import LevelScale
from lapcvae.models.settings import ModelSettings
from lapcvae.models.storage import Description, save_level
from lapcvae.registry import models, tracking
from lapcvae.registry.store import open_client

PARAMS = """\
seed: 0
levels:
  3: {updates: 10, beta: 0.5}
tracking: {experiment: faces, model: lapcvae, primary_metric: lapcvae.rmse.mean}
"""


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("DVC_ROOT", raising=False)
        patch.chdir(folder)
        open_client()
    return folder / "mlflow.db"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Path:
    """A project folder with `params.yaml` and an empty store, current for the test, outside any DVC process."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "LAPCVAE_PIPELINE_RUN", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(empty_database, tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make(project: Path) -> Callable[[int], list[Path]]:
    """Trains nothing: makes and registers version after version of a tiny pyramid; returns its level folders."""

    def made(seed: int) -> list[Path]:
        import torch

        folder = project / "made" / str(seed) / "level1"
        zero = (0.0, 0.0, 0.0)
        settings = ModelSettings(width=8, latent="vector", latent_size=2)
        description = Description(1, 1, 8, "burt", settings, LevelScale(zero, 0.2, zero, 0.2))
        torch.manual_seed(seed)
        save_level(description.build(), description, folder)
        with tracking.child_run("level 1", "level", {}) as run:
            pass
        models.register("lapcvae", [folder], run.run_id, {}, crown_first=False)
        return [folder]

    return made
