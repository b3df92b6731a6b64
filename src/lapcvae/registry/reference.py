"""What a version was trained on, as the columns that drift is measured in: kept beside its files."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from lapcvae.evaluation import drift
from lapcvae.registry.store import open_client, told, tracking_uri

_FOLDER = "reference"


def keep(name: str, version: int, columns: dict[str, np.ndarray]) -> None:
    """Keep the columns of `drift.describe` with a version. Raises `RegistryError` where MLflow is away."""
    with told(), tempfile.TemporaryDirectory() as scratch:
        client = open_client()
        drift.save_reference(columns, Path(scratch, f"version{version}.npz"))
        run_id = client.get_model_version(name, str(version)).run_id
        client.log_artifact(run_id, str(Path(scratch, f"version{version}.npz")), _FOLDER)


def fetch(name: str, version: int) -> dict[str, np.ndarray] | None:
    """The columns that were kept with a version, None where none were."""
    with told(), tempfile.TemporaryDirectory() as scratch:
        from mlflow.artifacts import download_artifacts

        client = open_client()
        run_id = str(client.get_model_version(name, str(version)).run_id)
        path = f"{_FOLDER}/version{version}.npz"
        if path not in {file.path for file in client.list_artifacts(run_id, _FOLDER)}:
            return None
        found = download_artifacts(run_id=run_id, artifact_path=path, dst_path=scratch, tracking_uri=tracking_uri())
        return drift.load_reference(Path(found))
