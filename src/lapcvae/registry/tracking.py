"""MLflow runs of the stages: a child a level or a baseline, under the one run of the pipeline.

Logging never costs training. If MLflow's store cannot be reached, one warning goes to stderr, the rest of that run is
not logged, and the stage goes on; a run that could not be started has the run id "".

A pipeline run is RUNNING while one of its stages is, and afterwards ends as that stage did, so that a pipeline that
was stopped, or of which only some stages were asked for, is never shown as still going on.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lapcvae import config
from lapcvae.errors import LapcvaeError, StoppedError
from lapcvae.registry import pipeline_run
from lapcvae.registry.source import flatten
from lapcvae.registry.store import open_client, open_experiment, tracking_uri

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient

T = TypeVar("T")


@dataclass(frozen=True)
class TrackingConfig:
    """The `tracking` section of `params.yaml`.

    experiment, model: names in MLflow. primary_metric: dotted key in reports/metrics.json, lower is better.
    """

    experiment: str
    model: str
    primary_metric: str


class Run:
    """One MLflow run being written. `run_id` is "" where MLflow could not be reached."""

    def __init__(self) -> None:
        self.run_id = ""
        self.parent_id = ""
        self._client: MlflowClient | None = None
        self._lost = self._warned = False

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Log scalar metrics at `step` in one call: once a logging interval, never once a batch."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(key, float(value), now, step) for key, value in metrics.items()]
        self._attempt(lambda client: client.log_batch(self.run_id, metrics=values))

    def picture(self, name: str, picture: Path | str | np.ndarray) -> None:
        """Keep a PNG file, or an array `H W 3` or `H W` (uint8, or float in 0..1), as `pictures/<name>.png`."""
        file = f"pictures/{name}.png"
        if not isinstance(picture, Path | str):
            self._attempt(lambda client: client.log_image(self.run_id, picture, file))
            return
        with tempfile.TemporaryDirectory() as scratch:  # MLflow keeps a file under the name it has
            renamed = Path(scratch, Path(file).name)
            shutil.copyfile(picture, renamed)
            self.artifact(renamed, str(Path(file).parent))

    def artifact(self, path: Path | str, folder: str = "") -> None:
        """Keep a copy of a file, or of a whole folder's contents, under `folder` of the run's artifacts."""
        keep = "log_artifacts" if Path(path).is_dir() else "log_artifact"
        self._attempt(lambda client: getattr(client, keep)(self.run_id, str(path), folder or None))

    def tag(self, key: str, value: str) -> None:
        """Set a tag on this run."""
        self._attempt(lambda client: client.set_tag(self.run_id, key, value))

    def _attempt(self, call: Callable[[MlflowClient], T]) -> T | None:
        """Do one thing with MLflow, or warn once and do nothing more for this run."""
        if self._lost:
            return None
        try:
            if self._client is None:
                self._client = open_client()
            return call(self._client)
        except LapcvaeError:
            raise
        except Exception as error:  # whatever goes wrong inside MLflow, the model is worth more than its record
            self._lost = True
            if not self._warned:
                reason = str(error).strip().splitlines()[0]
                print(f"warning: MLflow at {tracking_uri()} is away ({reason}); going on without it", file=sys.stderr)
            self._warned = True
            return None

    def _end(self, status: str) -> None:
        # Tried even after a loss: the store may be back, and a run left RUNNING would be a lie.
        self._lost = False
        for run_id in filter(None, (self.run_id, self.parent_id)):
            self._attempt(partial(_terminate, run_id, status))


def read_config() -> TrackingConfig:
    """The `tracking` section of `params.yaml`. Raises `ConfigError`."""
    return config.load(TrackingConfig, "tracking")


@contextmanager
def child_run(
    name: str, kind: str, params: dict[str, Any], tags: dict[str, str] | None = None, data_digest: str = ""
) -> Iterator[Run]:
    """A run for the body's work under this pipeline's run; it ends as the body does (FINISHED, FAILED, KILLED).

    `name` is what people read ("level 3"), `kind` what they filter by ("level", "baseline"), `params` this stage's own
    parameters (nested ones are flattened), `data_digest` the SHA-256 of the data set. Raises what the body raises.
    """
    tracked = Run()
    tracked._attempt(lambda client: _start(tracked, client, name, kind, params, tags or {}, data_digest))
    status = "FINISHED"
    try:
        yield tracked
    except (KeyboardInterrupt, StoppedError):
        status = "KILLED"
        raise
    except BaseException:
        status = "FAILED"
        raise
    finally:
        tracked._end(status)


def _start(
    run: Run, client: MlflowClient, name: str, kind: str, params: dict[str, Any], tags: dict[str, str], digest: str
) -> None:
    from mlflow.entities import Param

    experiment = open_experiment(client, read_config().experiment)
    run.parent_id = pipeline_run.find_or_create(client, experiment)
    client.update_run(run.parent_id, status="RUNNING")
    known = {"mlflow.parentRunId": run.parent_id, "kind": kind, "mlflow.source.name": "dvc.yaml"}
    run.run_id = client.create_run(experiment, tags=known | tags, run_name=name).info.run_id
    flat = flatten(params)
    if digest:
        pipeline_run.note_data(client, run.run_id, digest)
        pipeline_run.note_data(client, run.parent_id, digest)
    client.log_batch(run.run_id, params=[Param(key, str(value)) for key, value in flat.items()])


def _terminate(run_id: str, status: str, client: MlflowClient) -> None:
    client.set_terminated(run_id, status)


def finish_pipeline(
    metrics: dict[str, Any], artifacts: list[Path], made_by: dict[str, str], data_digest: str = ""
) -> str:
    """Log a pipeline's final metrics (nested ones flattened) and reports on its run, and end it; the run's id.

    `made_by` says which run made each model. A stage that DVC skipped, or restored from its cache, has no run under
    this pipeline's; its older run is named here all the same, as a tag and as a link in the run's description.
    The id is "" where MLflow could not be reached.
    """
    run = Run()
    run._attempt(lambda client: _adopt(run, client, made_by, data_digest))
    numbers = {k: v for k, v in flatten(metrics).items() if isinstance(v, int | float) and not isinstance(v, bool)}
    if run.run_id:
        run.log(0, numbers)
        for path in artifacts:
            run.artifact(path, "reports")
        run._end("FINISHED")
    return run.run_id


def _adopt(run: Run, client: MlflowClient, made_by: dict[str, str], digest: str) -> None:
    experiment = open_experiment(client, read_config().experiment)
    run.run_id = pipeline_run.find_or_create(client, experiment)
    lines = ["Models of this pipeline run, and the runs that trained them:", ""]
    for model, trainer in made_by.items():
        client.set_tag(run.run_id, f"run.{model}", trainer)
        lines.append(f"- [{model}](#/experiments/{experiment}/runs/{trainer})" if trainer else f"- {model}: not logged")
    client.set_tag(run.run_id, "mlflow.note.content", "\n".join(lines))
    if digest:
        pipeline_run.note_data(client, run.run_id, digest)
