"""Runs whose process was killed before it could end them: marked by the next start, so none is RUNNING for ever."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from lapcvae.io.process import is_alive
from lapcvae.registry.store import open_client, told

if TYPE_CHECKING:
    from mlflow import MlflowClient


def mark_crashed(experiment: str) -> list[str]:
    """`end_crashed` in the experiment called so. Raises `RegistryError` where MLflow is away."""
    with told():
        client = open_client()
        found = client.get_experiment_by_name(experiment)
        return [] if found is None else end_crashed(client, found.experiment_id)


def end_crashed(client: MlflowClient, experiment_id: str) -> list[str]:
    """End every RUNNING run of the experiment whose process on this machine is gone as FAILED; returns their ids.

    They get the tag `crashed`. Runs of other machines are left alone: whether those still run cannot be seen from here.
    """
    marked = []
    query = f"attributes.status = 'RUNNING' and tags.host = '{socket.gethostname()}'"
    for run in client.search_runs([experiment_id], query, max_results=1000):
        if not is_alive(run.data.tags.get("process", "")):
            end_as_crashed(client, run.info.run_id)
            marked.append(str(run.info.run_id))
    return marked


def end_as_crashed(client: MlflowClient, run_id: str) -> None:
    """End a run as that of a process that was killed."""
    client.set_tag(run_id, "crashed", "true")
    client.set_terminated(run_id, "FAILED")
