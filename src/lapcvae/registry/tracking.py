"""MLflow runs of the stages: a child a level or a baseline, under the one run of the pipeline.

Logging never costs training: what a run logs is handed to a thread of its own, which also imports MLflow and finds the
run, so that training begins at once and never waits for a store. If the store cannot be reached, one warning goes to
stderr, the rest of that run is kept in a spool and delivered by the next run (see `registry.spool`), and the stage goes
on.

A pipeline run is RUNNING while one of its stages is, and afterwards ends as that stage did, so that a pipeline that
was stopped, or of which only some stages were asked for, is never shown as still going on.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lapcvae import config
from lapcvae.errors import LapcvaeError, StoppedError
from lapcvae.registry import pipeline_run, spool
from lapcvae.registry.source import flatten
from lapcvae.registry.spool import Spool
from lapcvae.registry.store import open_client, open_experiment, tracking_uri

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient

T = TypeVar("T")

GATED = "LAPCVAE_GATED"  # in the environment of stages: a gate decides who is champion, registering does not


@dataclass(frozen=True)
class TrackingConfig:
    """The `tracking` section of `params.yaml`.

    experiment, model: names in MLflow. primary_metric: dotted key in reports/metrics.json, lower is better.
    """

    experiment: str
    model: str
    primary_metric: str


class Run:
    """One MLflow run being written, in order, by a thread of its own where it has one (`child_run`'s have)."""

    def __init__(self, thread: ThreadPoolExecutor | None = None) -> None:
        self._run_id = ""
        self.parent_id = ""
        self.start: dict[str, Any] | None = None  # what a spool needs to make the run later; None: it is never spooled
        self._thread = thread
        self._handed: list[Future[Any]] = []
        self._client: MlflowClient | None = None
        self._spool: Spool | None = None
        self._lost = self._warned = False

    @property
    def run_id(self) -> str:
        """MLflow's id once all that was handed over is written; "" where MLflow could not be reached at the start."""
        self.wait()
        return self._run_id

    @property
    def record_id(self) -> str:
        """What run.json names: MLflow's id, or that of the spool from which the run is delivered later."""
        self.wait()
        return self._run_id or (f"{spool.PREFIX}{self._spool.name}" if self._spool else "")

    def wait(self) -> None:
        """Wait until all that was handed over is written or spooled."""
        handed, self._handed = self._handed, []
        for future in handed:
            future.result()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Log scalar metrics at `step` in one call: once a logging interval, never once a batch."""
        now, plain = int(time.time() * 1000), {key: float(value) for key, value in metrics.items()}

        def call(client: MlflowClient) -> None:
            from mlflow.entities import Metric

            client.log_batch(self._run_id, metrics=[Metric(key, value, now, step) for key, value in plain.items()])

        self._hand_over(call, {"op": "metrics", "step": step, "at_ms": now, "values": plain})

    def picture(self, name: str, picture: Path | str | np.ndarray) -> None:
        """Keep a PNG file, or an array `H W 3` or `H W` (uint8, or float in 0..1), as `<name>.png`.

        It lies at the top of the run's artifacts: only what does, under the same name, is what MLflow's page for
        comparing runs shows side by side.
        """
        with tempfile.TemporaryDirectory() as scratch:  # MLflow keeps a file under the name it has
            renamed = Path(scratch, f"{name}.png")
            if isinstance(picture, Path | str):
                shutil.copyfile(picture, renamed)
            else:
                _write_png(picture, renamed)
            self.artifact(renamed)

    def artifact(self, path: Path | str, folder: str = "") -> None:
        """Keep a copy of a file, or of a whole folder's contents, under `folder` of the run's artifacts.

        Returns once it is kept: the file may go afterwards.
        """
        keep = "log_artifacts" if Path(path).is_dir() else "log_artifact"
        self._hand_over(
            lambda client: getattr(client, keep)(self._run_id, str(path), folder or None),
            {"op": "artifact", "folder": folder},
            [Path(path)],
        )
        self.wait()

    def tag(self, key: str, value: str) -> None:
        """Set a tag on this run."""
        self._hand_over(
            lambda client: client.set_tag(self._run_id, key, value), {"op": "tag", "key": key, "value": value}
        )

    def _hand_over(self, call: Callable[[MlflowClient], object], *what: Any) -> None:
        """`_attempt`, in this run's thread where it has one."""
        if self._thread is None:
            self._attempt(call, *what)
        else:
            self._handed.append(self._thread.submit(self._attempt, call, *what))

    def _attempt(
        self,
        call: Callable[[MlflowClient], T],
        operation: dict[str, Any] | None = None,
        files: list[Path] | None = None,
    ) -> T | None:
        """Do one thing with MLflow; once that has failed, warn once and keep this and all after it in a spool."""
        if not self._lost:
            try:
                if self._client is None:
                    self._client = open_client()
                return call(self._client)
            except LapcvaeError:
                raise
            except Exception as error:  # whatever goes wrong inside MLflow, the model is worth more than its record
                self._lost = True
                self._warn(error)
        self._keep(operation, files)
        return None

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            later = "; what it should log is kept and delivered later" if self.start is not None else ""
            print(
                f"warning: MLflow at {tracking_uri()} is away ({reason}); going on without it{later}", file=sys.stderr
            )
        self._warned = True

    def _keep(self, operation: dict[str, Any] | None, files: list[Path] | None) -> None:
        if self.start is None:
            return
        if self._spool is None:
            self._spool = Spool(self._run_id, self.start)
        if operation is not None:
            self._spool.keep(operation, files)

    def _end(self, status: str) -> None:
        self.wait()
        if self._spool is not None:
            self._spool.keep({"op": "end", "status": status, "at_ms": int(time.time() * 1000)})
            self._spool.close()
        # Tried even after a loss: the store may be back, and a run left RUNNING would be a lie.
        self._lost, self.start = False, None
        for run_id in filter(None, (self._run_id, self.parent_id)):
            self._hand_over(partial(_terminate, run_id, status))
        self.wait()


def _write_png(picture: np.ndarray, path: Path) -> None:
    import numpy as np
    from PIL import Image

    array = picture if picture.dtype == np.uint8 else (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    Image.fromarray(array).save(path, "PNG")


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
        tracked._hand_over(lambda client: _start(tracked, client, name, kind, params, tags or {}, data_digest))
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
            tracked._thread = None


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
    known = {"mlflow.parentRunId": run.parent_id, "kind": kind, "mlflow.source.name": "dvc.yaml"}
    known |= pipeline_run.process_tags()
    run._run_id = client.create_run(experiment, tags=known | tags, run_name=name).info.run_id
    flat = flatten(params)
    if digest:
        pipeline_run.note_data(client, run._run_id, digest)
        pipeline_run.note_data(client, run.parent_id, digest)
    client.log_batch(run._run_id, params=[Param(key, str(value)) for key, value in flat.items()])


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


def keep_sources(run_id: str, files: list[Path]) -> None:
    """Keep what decides a result (parameters, the graph, DVC's lock) under `lineage/` of a run; missing ones are left
    out. MLflow being away is no error here.
    """
    run = Run()
    run._run_id = run_id
    for path in files:
        if path.is_file():
            run.artifact(path, "lineage")


def _adopt(run: Run, client: MlflowClient, made_by: dict[str, str], digest: str) -> None:
    experiment = open_experiment(client, read_config().experiment)
    run._run_id = pipeline_run.find_or_create(client, experiment)
    lines = ["Models of this pipeline run, and the runs that trained them:", ""]
    for model, trainer in made_by.items():
        client.set_tag(run._run_id, f"run.{model}", trainer)
        lines.append(f"- [{model}](#/experiments/{experiment}/runs/{trainer})" if trainer else f"- {model}: not logged")
    client.set_tag(run._run_id, "mlflow.note.content", "\n".join(lines))
    if digest:
        pipeline_run.note_data(client, run._run_id, digest)
