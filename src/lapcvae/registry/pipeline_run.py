"""The one MLflow run of a pipeline run: parent of the runs of its levels and baselines.

Stages are separate processes. They agree on their parent without being told by each other: it is the run tagged with
1. what `LAPCVAE_PIPELINE_RUN` in the environment says (the Prefect flow sets it, to the id of its flow run);
2. else the `dvc` process that all of them descend from.
The first stage that needs the run creates it, so a pipeline that had nothing to do leaves none. A stage started by
hand, with neither, gets a new one.
"""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import psutil

from lapcvae.config import read_params
from lapcvae.io.process import own_name
from lapcvae.registry.source import flatten, git_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

VARIABLE = "LAPCVAE_PIPELINE_RUN"
_PARAMS_A_CALL = 100  # MLflow's limit
_CLOCK_SLACK_S = 5.0  # a process's start is derived from the boot time, which moves a little when the clock is set


@dataclass(frozen=True)
class Origin:
    """What a pipeline run is known by, and what is written on it when it is made.

    key, started: of what started the pipeline (see above). tags, params: of the new run.
    """

    key: str
    started: float
    tags: dict[str, str]
    params: dict[str, str]


def origin() -> Origin:
    """This process's own."""
    key, started = _started_by()
    known = {"kind": "pipeline", **process_tags(), "mlflow.user": getpass.getuser(), "mlflow.source.name": "dvc.yaml"}
    params = {key: str(value) for key, value in flatten(read_params()).items()}
    return Origin(key, started, known | git_tags(), params)


def find_or_create(client: MlflowClient, experiment: str, of: Origin | None = None) -> str:
    """The id of this process's pipeline run (or of the one `of`) in the experiment with id `experiment`."""
    key, started = (of.key, of.started) if of else _started_by()
    if not key:
        return create(client, experiment, {}, of)
    query = f"tags.kind = 'pipeline' and tags.started_by = '{key}'"
    for run in client.search_runs([experiment], query, order_by=["attributes.start_time DESC"], max_results=1):
        if abs(float(run.data.tags["started_by_at"]) - started) < _CLOCK_SLACK_S:
            return str(run.info.run_id)
    return create(client, experiment, {"started_by": key, "started_by_at": repr(started)}, of)


def create(client: MlflowClient, experiment: str, tags: dict[str, str] | None = None, of: Origin | None = None) -> str:
    """A new pipeline run with every parameter of `params.yaml`, the git commit and `tags`; its id."""
    from mlflow.entities import Param

    name = f"{os.environ.get('DVC_EXP_NAME') or 'pipeline'} {datetime.now():%Y-%m-%d %H:%M}"
    of = of or origin()
    run_id = str(client.create_run(experiment, run_name=name, tags=of.tags | (tags or {})).info.run_id)
    params = [Param(key, value) for key, value in of.params.items()]
    for start in range(0, len(params), _PARAMS_A_CALL):
        client.log_batch(run_id, params=params[start : start + _PARAMS_A_CALL])
    return run_id


def note_data(client: MlflowClient, run_id: str, digest: str) -> None:
    """Say on a run which data set it used, as a tag and as the input that MLflow's pages show beside it."""
    from mlflow.entities import Dataset, DatasetInput

    client.set_tag(run_id, "data_digest", digest)
    faces = Dataset(name="faces", digest=digest[:36], source_type="dvc", source="dvc.lock")  # 36: MLflow's limit
    client.log_inputs(run_id, [DatasetInput(faces, tags=[])])


def process_tags() -> dict[str, str]:
    """Who writes a run, so that a later one can tell whether it still does."""
    return {"host": socket.gethostname(), "process": own_name()}


def _started_by() -> tuple[str, float]:
    """What started this pipeline: a name, and the second it started where the name alone may come again (a pid)."""
    if named := os.environ.get(VARIABLE):
        return named, 0.0
    process = _dvc_ancestor()
    return (f"dvc {socket.gethostname()}:{process.pid}", process.create_time()) if process else ("", 0.0)


def _dvc_ancestor() -> psutil.Process | None:
    """The nearest ancestor that is DVC's command: `dvc ...`, or `python -m dvc ...` as experiments start it."""
    for parent in psutil.Process().parents():
        try:
            words = parent.cmdline()
        except psutil.Error:
            continue
        if any(os.path.basename(word) == "dvc" for word in words[:3]):  # noqa: PTH119 (a word need not be a path)
            return parent
    return None
