"""Trained pyramids in MLflow's registry: versions, the aliases people load them by, and their files.

A version's files are `level1/` ... `levelK/`, each with weights.safetensors and model.json: what
`lapcvae.models.storage.load_cascade` reads. Equal files are one version, however often they are registered.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapcvae.errors import RegistryError
from lapcvae.io.atomic import sha256_file
from lapcvae.registry.store import open_client, told, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILES = ("weights.safetensors", "model.json")
# What the last pipeline run made (MLflow keeps the name "latest" for the highest number), and what people load.
CURRENT, CHAMPION, PREVIOUS = "current", "champion", "previous"
_FOLDER = "pyramid"  # among the run's artifacts


@dataclass(frozen=True)
class Registered:
    """A model version: `version` as MLflow counts it, `run_id` of the pipeline run that first registered it."""

    name: str
    version: int
    run_id: str
    is_new: bool


class DamagedVersionError(RegistryError):
    """A version is in the registry, but its files are not what was registered. Another version may be whole."""


def digest(levels: list[Path]) -> str:
    """SHA-256 of the files of a pyramid's level folders, finest first: equal for equal models, whatever made them."""
    parts = [[f"level{k}", name, sha256_file(folder / name)] for k, folder in enumerate(levels, 1) for name in FILES]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def register(name: str, levels: list[Path], run_id: str, tags: dict[str, str], crown_first: bool = True) -> Registered:
    """Make the pyramid in the folders `levels` (finest first) a version of the model `name`, and alias it `current`.

    `run_id` is the pipeline run that keeps the files; `tags` go on a new version. A pyramid that is a version already
    only gets the alias back. With `crown_first` a model without a champion gets this one; a champion that is there is
    never touched here: replacing it is for the gate (see `registry.promotion`). Safe to repeat after an interruption.
    Raises `RegistryError` where MLflow cannot be reached.
    """
    with told():
        client = open_client()
        fingerprint = digest(levels)
        _make_model(client, name)
        query = f"name = '{name}' and tags.weights_digest = '{fingerprint}'"
        versions = client.search_model_versions(query, order_by=["version_number ASC"], max_results=1)
        if versions:
            found = versions[0]
        else:
            _upload(client, run_id, levels)
            source = f"{client.get_run(run_id).info.artifact_uri}/{_FOLDER}"
            found = client.create_model_version(name, source, run_id, tags | {"weights_digest": fingerprint})
        client.set_registered_model_alias(name, CURRENT, str(found.version))
        if crown_first and CHAMPION not in client.get_registered_model(name).aliases:
            client.set_registered_model_alias(name, CHAMPION, str(found.version))
    return Registered(name, int(found.version), str(found.run_id), is_new=not versions)


def fetch(name: str, alias_or_version: str, folder: Path) -> list[Path]:
    """Copy a registered pyramid into `folder` and return its level folders, finest first.

    `alias_or_version` is such as "champion", "current" or "3". Raises `RegistryError` where there is no such version,
    its files are gone, or MLflow cannot be reached.
    """
    with told():
        from mlflow.artifacts import download_artifacts

        client = open_client()
        if alias_or_version.isdigit():
            version = client.get_model_version(name, alias_or_version)
        else:
            version = client.get_model_version_by_alias(name, alias_or_version)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            download_artifacts(artifact_uri=version.source, dst_path=str(folder), tracking_uri=tracking_uri())
        except Exception:
            # An empty folder can be looked into, a store that is away cannot: only the first is damage.
            if client.list_artifacts(str(version.run_id), _FOLDER):
                raise
    levels = sorted((folder / _FOLDER).glob("level*"), key=lambda level: int(level.name.removeprefix("level")))
    complete = all((level / file).is_file() for level in levels for file in FILES)
    if not levels or not complete or digest(levels) != version.tags["weights_digest"]:
        raise DamagedVersionError(
            f"{name} version {version.version}: its files at {version.source} are damaged or gone"
        )
    return levels


def mend(name: str, version: str, levels: list[Path]) -> bool:
    """Put the files of a damaged version back from `levels`, where those are the same model; whether they were."""
    if not all((level / file).is_file() for level in levels for file in FILES):
        return False
    with told():
        client = open_client()
        found = client.get_model_version(name, version)
        if not levels or digest(levels) != found.tags["weights_digest"]:
            return False
        _upload(client, str(found.run_id), levels)
    return True


def _upload(client: MlflowClient, run_id: str, levels: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for k, level in enumerate(levels, 1):
            target = Path(scratch, f"level{k}")
            target.mkdir()
            for name in FILES:
                shutil.copyfile(level / name, target / name)
        client.log_artifacts(run_id, scratch, _FOLDER)


def _make_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Laplacian pyramids of conditional variational autoencoders")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def params_digest(params: dict[str, Any]) -> str:
    """SHA-256 of a parameter tree, whatever its order, comments and layout in the file."""
    return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()
