"""MLflow runs of the stages: a child a level or a baseline, under the one run of the pipeline.

A pipeline run is RUNNING while one of its stages is, and afterwards ends as that stage did, so that a pipeline that
was stopped, or of which only some stages were asked for, is never shown as still going on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapcvae import config
from lapcvae.errors import StoppedError
from lapcvae.registry import pipeline_run
from lapcvae.registry.crashed import end_crashed
from lapcvae.registry.run import Run
from lapcvae.registry.source import flatten
from lapcvae.registry.store import open_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient

GATED = "LAPCVAE_GATED"  # in the environment of stages: a gate decides who is champion, registering does not


@dataclass(frozen=True)
class TrackingConfig:
    """The `tracking` section of `params.yaml`.

    experiment, model: names in MLflow. primary_metric: dotted key in reports/metrics.json, lower is better.
    """

    experiment: str
    model: str
    primary_metric: str


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
    with ThreadPoolExecutor(1, thread_name_prefix="mlflow") as thread:
        tracked = Run(thread)
        tracked.start = _for_later(name, kind, params, tags or {}, data_digest)
        tracked.hand_over(lambda client: _start(tracked, client, name, kind, params, tags or {}, data_digest))
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
            tracked.end(status)
            tracked.thread = None


def _start(
    run: Run, client: MlflowClient, name: str, kind: str, params: dict[str, Any], tags: dict[str, str], digest: str
) -> None:
    from mlflow.entities import Param

    experiment = open_experiment(client, read_config().experiment)
    run.parent_id = pipeline_run.find_or_create(client, experiment)
    client.update_run(run.parent_id, status="RUNNING")
    # The pipeline's run is held by whichever of its stages writes it now.
    for key, value in pipeline_run.process_tags().items():
        client.set_tag(run.parent_id, key, value)
    end_crashed(client, experiment)  # the pipeline's run is this process's by now
    known = {"mlflow.parentRunId": run.parent_id, "kind": kind, "mlflow.source.name": "dvc.yaml"}
    known |= pipeline_run.process_tags()
    run.mlflow_id = client.create_run(experiment, tags=known | tags, run_name=name).info.run_id
    flat = flatten(params)
    if digest:
        pipeline_run.note_data(client, run.mlflow_id, digest)
        pipeline_run.note_data(client, run.parent_id, digest)
    client.log_batch(run.mlflow_id, params=[Param(key, str(value)) for key, value in flat.items()])


def _for_later(name: str, kind: str, params: dict[str, Any], tags: dict[str, str], data_digest: str) -> dict[str, Any]:
    """All that is needed to make this run later, when its process and its parameters may be gone."""
    return {
        "experiment": read_config().experiment,
        "origin": asdict(pipeline_run.origin()),
        "name": name,
        "tags": {"kind": kind, "mlflow.source.name": "dvc.yaml", **pipeline_run.process_tags(), **tags},
        "params": {key: str(value) for key, value in flatten(params).items()},
        "data_digest": data_digest,
        "started_ms": int(time.time() * 1000),
    }


def finish_pipeline(
    metrics: dict[str, Any], artifacts: list[Path], made_by: dict[str, str], data_digest: str = ""
) -> str:
    """Log a pipeline's final metrics (nested ones flattened) and reports on its run, and end it; the run's id.

    `made_by` says which run made each model. A stage that DVC skipped, or restored from its cache, has no run under
    this pipeline's; its older run is named here all the same, as a tag and as a link in the run's description.
    The id is "" where MLflow could not be reached.
    """
    run = Run()
    run.attempt(lambda client: _adopt(run, client, made_by, data_digest))
    numbers = {k: v for k, v in flatten(metrics).items() if isinstance(v, int | float) and not isinstance(v, bool)}
    if run.run_id:
        run.log(0, numbers)
        for path in artifacts:
            run.artifact(path, "reports")
        run.end("FINISHED")
    return run.run_id


def keep_sources(run_id: str, files: list[Path]) -> None:
    """Keep what decides a result (parameters, the graph, DVC's lock) under `lineage/` of a run; missing ones are left
    out. MLflow being away is no error here.
    """
    run = Run()
    run.mlflow_id = run_id
    for path in files:
        if path.is_file():
            run.artifact(path, "lineage")


def _adopt(run: Run, client: MlflowClient, made_by: dict[str, str], digest: str) -> None:
    experiment = open_experiment(client, read_config().experiment)
    run.mlflow_id = pipeline_run.find_or_create(client, experiment)
    lines = ["Models of this pipeline run, and the runs that trained them:", ""]
    for model, trainer in made_by.items():
        client.set_tag(run.mlflow_id, f"run.{model}", trainer)
        lines.append(f"- [{model}](#/experiments/{experiment}/runs/{trainer})" if trainer else f"- {model}: not logged")
    client.set_tag(run.mlflow_id, "mlflow.note.content", "\n".join(lines))
    if digest:
        pipeline_run.note_data(client, run.mlflow_id, digest)
