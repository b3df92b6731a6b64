"""MLflow runs of the stages: a child a level or a baseline, under the one run of the pipeline.

A pipeline run is RUNNING while one of its stages is, and afterwards ends as that stage did, so that a pipeline that
was stopped, or of which only some stages were asked for, is never shown as still going on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapcvae import config
from lapcvae.errors import StoppedError
from lapcvae.registry import operations, pipeline_run
from lapcvae.registry.operations import START, Operation, now_ms
from lapcvae.registry.record import Ids, Record
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
    tracked, status = Run(_start(name, kind, params, tags or {}, data_digest)), "FINISHED"
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


def _start(name: str, kind: str, params: dict[str, Any], tags: dict[str, str], data_digest: str) -> Operation:
    """All that is needed to make a run, also by another process, or when this one and its parameters are gone."""
    return {
        "op": START,
        "experiment": read_config().experiment,
        "origin": asdict(pipeline_run.origin()),
        "name": name,
        "tags": {"kind": kind, "mlflow.source.name": "dvc.yaml", **pipeline_run.process_tags(), **tags},
        "params": {key: str(value) for key, value in flatten(params).items()},
        "data_digest": data_digest,
        "started_ms": now_ms(),
    }


def finish_pipeline(
    metrics: dict[str, Any], artifacts: list[Path], made_by: dict[str, str], data_digest: str = ""
) -> str:
    """Log a pipeline's final metrics (nested ones flattened) and reports on its run, and end it; the run's id.

    `made_by` says which run made each model. A stage that DVC skipped, or restored from its cache, has no run under
    this pipeline's; its older run is named here all the same, as a tag and as a link in the run's description.
    The id is "" where MLflow could not be reached.
    """
    experiment, record = read_config().experiment, Record()
    record.attempt(lambda client: _adopt(record, client, experiment, made_by, data_digest))
    if record.run_id:
        numbers = {k: v for k, v in flatten(metrics).items() if isinstance(v, int | float) and not isinstance(v, bool)}
        record.do(operations.metrics(0, numbers))
        record.do(operations.artifact("reports"), artifacts)
        record.do(operations.end("FINISHED"))
    return record.run_id


def keep_sources(run_id: str, files: list[Path]) -> None:
    """Keep what decides a result (parameters, the graph, DVC's lock) under `lineage/` of a run; missing ones are left
    out. MLflow being away is no error here.
    """
    Record(Ids(run_id)).do(operations.artifact("lineage"), [path for path in files if path.is_file()])


def _adopt(record: Record, client: MlflowClient, name: str, made_by: dict[str, str], digest: str) -> None:
    experiment = open_experiment(client, name)
    record.run_id = pipeline_run.find_or_create(client, experiment)
    lines = ["Models of this pipeline run, and the runs that trained them:", ""]
    for model, trainer in made_by.items():
        client.set_tag(record.run_id, f"run.{model}", trainer)
        lines.append(f"- [{model}](#/experiments/{experiment}/runs/{trainer})" if trainer else f"- {model}: not logged")
    client.set_tag(record.run_id, "mlflow.note.content", "\n".join(lines))
    if digest:
        pipeline_run.note_data(client, record.run_id, digest)
