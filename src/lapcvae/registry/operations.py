"""What can be said of an MLflow run, as plain data: another process can be told it, and a file can keep it for later.

An operation is a mapping, its kind under `op`; files that it speaks of are told beside it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapcvae.errors import RegistryError
from lapcvae.registry import pipeline_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

Operation = dict[str, Any]
START, END = "start", "end"


def metrics(step: int, values: dict[str, float]) -> Operation:
    """Scalars at `step`, measured now."""
    plain = {key: float(value) for key, value in values.items()}
    return {"op": "metrics", "step": step, "at_ms": now_ms(), "values": plain}


def artifact(folder: str) -> Operation:
    """Copies of files, and of folders' contents, under `folder` of the run's artifacts."""
    return {"op": "artifact", "folder": folder}


def tag(key: str, value: str) -> Operation:
    """A tag on the run."""
    return {"op": "tag", "key": key, "value": value}


def end(status: str) -> Operation:
    """The run ends now, with a status of MLflow's (FINISHED, FAILED, KILLED)."""
    return {"op": END, "status": status, "at_ms": now_ms()}


def now_ms() -> int:
    """Milliseconds of the clock, as MLflow counts time."""
    return int(time.time() * 1000)


def apply(client: MlflowClient, run_id: str, operation: Operation, files: Sequence[Path]) -> None:
    """Do it; what is done twice is as if done once. Raises `RegistryError` for a kind that is not known."""
    from mlflow.entities import Metric

    kind = operation["op"]
    if kind == "metrics":
        values = operation["values"].items()
        client.log_batch(
            run_id, metrics=[Metric(key, value, operation["at_ms"], operation["step"]) for key, value in values]
        )
    elif kind == "tag":
        client.set_tag(run_id, operation["key"], operation["value"])
    elif kind == "artifact":
        for path in files:
            keep = client.log_artifacts if path.is_dir() else client.log_artifact
            keep(run_id, str(path), operation["folder"] or None)
    elif kind == END:
        client.set_terminated(run_id, operation["status"], operation["at_ms"])
    else:
        raise RegistryError(f"the operation `{kind}` is not known to this version")


def describe(client: MlflowClient, run_id: str, parent_id: str, start: Operation) -> None:
    """Say on a new run, and on the one above it, what its start says: parameters, and the data set."""
    from mlflow.entities import Param

    client.log_batch(run_id, params=[Param(key, value) for key, value in start["params"].items()])
    if start["data_digest"]:
        for of in (run_id, parent_id):
            pipeline_run.note_data(client, of, start["data_digest"])
