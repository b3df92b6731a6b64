"""What could not be logged while MLflow was away: kept in a folder, delivered later, nothing twice.

A spool is a folder `.cache/mlflow/ID/` with ops.jsonl, one operation a line in the order they were meant, and copies of
the files they speak of. Delivering is safe to repeat: the run is found again by its tag `spool`, metrics carry the time
at which they were first logged (MLflow keeps equal ones once), parameters and tags have their values, files replace
themselves.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lapcvae.io.lock import lock_if_free
from lapcvae.io.project import project_top
from lapcvae.registry import pipeline_run
from lapcvae.registry.crashed import end_as_crashed
from lapcvae.registry.operations import END, START, Operation, apply, describe
from lapcvae.registry.store import open_client, open_experiment, told

if TYPE_CHECKING:
    from mlflow import MlflowClient

PREFIX = "spool:"  # of a run's id in run.json where MLflow had given it none yet
_OPS, _OPEN = "ops.jsonl", "open.lock"


class Spool:
    """One run's undelivered operations. `run_id`: of a run that MLflow knows already, "" where it must be made."""

    def __init__(self, run_id: str, start: Operation) -> None:
        self.name = uuid.uuid4().hex
        self._folder = folder() / self.name
        self._folder.mkdir(parents=True)
        self._lock = (self._folder / _OPEN).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)  # held while the run writes, so that nobody delivers half of it
        self._files = 0
        self.keep({**start, "run_id": run_id})

    def keep(self, operation: Operation, files: Sequence[Path] = ()) -> None:
        """Append an operation, with copies of files or folders that it needs."""
        kept = []
        for path in files:
            target = self._folder / f"file{self._files}" / path.name
            self._files += 1
            target.parent.mkdir()
            shutil.copytree(path, target) if path.is_dir() else shutil.copyfile(path, target)
            kept.append(str(target.relative_to(self._folder)))
        with (self._folder / _OPS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(operation | {"files": kept}) + "\n")

    def close(self) -> None:
        """The run has ended: the spool may be delivered."""
        self._lock.close()


def folder() -> Path:
    """Where spools lie."""
    return project_top() / ".cache" / "mlflow"


def deliver() -> int:
    """Deliver every spool that no living run still writes; how many. Raises `RegistryError` where MLflow is away."""
    count = 0
    for path in sorted(folder().glob("*/")) if folder().is_dir() else []:
        with lock_if_free(path / _OPEN) as free:
            if free:
                _deliver_one(path)
                count += 1
    return count


def resolve(run_id: str) -> str:
    """The id that MLflow gave to a run that was spooled at first; "" where it was not delivered yet."""
    if not run_id.startswith(PREFIX):
        return run_id
    with told():
        client = open_client()
        return _find(client, [e.experiment_id for e in client.search_experiments()], run_id.removeprefix(PREFIX))


def _deliver_one(path: Path) -> None:
    lines = (path / _OPS).read_text(encoding="utf-8").splitlines() if (path / _OPS).exists() else []
    operations = [json.loads(line) for line in lines if line.endswith("}")]  # the last may be cut short by a kill
    with told():
        client = open_client()
        run_id, ended = "", False
        for operation in operations:
            if operation["op"] == START:
                run_id = operation["run_id"] or _start(client, path.name, operation)
            else:
                apply(client, run_id, operation, [path / file for file in operation["files"]])
                ended = ended or operation["op"] == END
        if run_id and not ended:  # its process was killed
            end_as_crashed(client, run_id)
    shutil.rmtree(path)


def _start(client: MlflowClient, name: str, operation: Operation) -> str:
    experiment = open_experiment(client, operation["experiment"])
    run_id = _find(client, [experiment], name)
    parent = pipeline_run.find_or_create(client, experiment, pipeline_run.Origin(**operation["origin"]))
    if not run_id:
        tags = operation["tags"] | {"mlflow.parentRunId": parent, "spool": name}
        made = client.create_run(experiment, operation["started_ms"], tags=tags, run_name=operation["name"])
        run_id = str(made.info.run_id)
    describe(client, run_id, parent, operation)
    client.set_terminated(parent, "FINISHED")
    return run_id


def _find(client: MlflowClient, experiments: list[str], name: str) -> str:
    found = client.search_runs(experiments, f"tags.spool = '{name}'", max_results=1)
    return str(found[0].info.run_id) if found else ""
