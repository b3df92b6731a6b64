"""Where MLflow keeps runs and models: one SQLite file and one artifacts folder at the project's top.

`MLFLOW_TRACKING_URI` in the environment wins, for a shared server or a test. Nothing is sent to anyone else.
MLflow is imported inside functions: it takes a second, which the stages that never log should not pay.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lapcvae.errors import LapcvaeError, RegistryError
from lapcvae.io.project import project_top

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
ARTIFACT_ROOT = "MLFLOW_DEFAULT_ARTIFACT_ROOT"  # as of `mlflow server`; for a database that is written without a server


def tracking_uri() -> str:
    """`MLFLOW_TRACKING_URI`, or the SQLite file at the project's top."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_top() / DATABASE}"


def import_mlflow() -> None:
    """Import what `open_client` and the store need: it takes seconds."""
    import mlflow

    if _local(tracking_uri()):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def open_client() -> MlflowClient:
    """A client of the store, its tables made where the database is new."""
    from mlflow import MlflowClient

    uri = tracking_uri()
    if database := _local(uri):
        _make(database)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def open_experiment(client: MlflowClient, name: str) -> str:
    """The id of the experiment called `name`, made where it does not exist, restored where it lies in the bin."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # A server decides itself where artifacts go; without one they go to the project's own folder, or where the
        # environment says.
        database, place = _local(tracking_uri()), os.environ.get(ARTIFACT_ROOT, "")
        location = str(database.parent / ARTIFACTS / name) if database else None
        location = f"{place.rstrip('/')}/{name}" if place else location
        try:
            return str(client.create_experiment(name, location, {"mlflow.experimentKind": "custom_model_development"}))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(name)  # another process was first
        assert found is not None
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _local(uri: str) -> Path | None:
    """The file of a store that is a SQLite database on this machine."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _make(database: Path) -> None:
    """Make a new database aside, then rename it, one process at a time.

    Two processes that met a new file would run MLflow's migrations into each other, and a process stopped amid them
    would leave a file that no later one could use.
    """
    if database.exists():
        return
    from mlflow import MlflowClient

    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(f"{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            aside = database.with_name(f"{database.name}.partial")
            aside.unlink(missing_ok=True)
            MlflowClient(tracking_uri=f"sqlite:///{aside}").search_experiments(max_results=1)
            aside.replace(database)


@contextmanager
def told() -> Iterator[None]:
    """Turn whatever MLflow raises into a `RegistryError` that says where its store is."""
    try:
        yield
    except LapcvaeError:
        raise
    except Exception as error:
        reason = first_line(error)
        if getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise RegistryError(f"MLflow's registry at {tracking_uri()} refuses: {reason}") from error
        raise RegistryError(
            f"MLflow's registry at {tracking_uri()} could not do it: {reason}. The models under models/ are whole; "
            "once MLflow is back, run the same command again"
        ) from error


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
