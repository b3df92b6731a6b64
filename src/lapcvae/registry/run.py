"""One MLflow run, written beside the work that it records.

Logging never costs training: what a run logs is handed to a thread of its own, which also imports MLflow and finds the
run, so that training begins at once and never waits for a store. If the store cannot be reached, one warning goes to
stderr, the rest of that run is kept in a spool and delivered by the next run (see `registry.spool`), and the stage goes
on.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lapcvae.errors import LapcvaeError
from lapcvae.registry import spool
from lapcvae.registry.spool import Spool
from lapcvae.registry.store import open_client, tracking_uri

if TYPE_CHECKING:
    import numpy as np
    from mlflow import MlflowClient

T = TypeVar("T")


class Run:
    """One MLflow run being written, in order, by a thread of its own where it has one (`child_run`'s have)."""

    def __init__(self, thread: ThreadPoolExecutor | None = None) -> None:
        self.mlflow_id = ""  # set by what starts the run, in the thread; others ask for `run_id`
        self.parent_id = ""
        self.start: dict[str, Any] | None = None  # what a spool needs to make the run later; None: it is never spooled
        self.thread = thread
        self._handed: list[Future[Any]] = []
        self._client: MlflowClient | None = None
        self._spool: Spool | None = None
        self._lost = self._warned = False

    @property
    def run_id(self) -> str:
        """MLflow's id once all that was handed over is written; "" where MLflow could not be reached at the start."""
        self.wait()
        return self.mlflow_id

    @property
    def record_id(self) -> str:
        """What run.json names: MLflow's id, or that of the spool from which the run is delivered later."""
        self.wait()
        return self.mlflow_id or (f"{spool.PREFIX}{self._spool.name}" if self._spool else "")

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

            client.log_batch(self.mlflow_id, metrics=[Metric(key, value, now, step) for key, value in plain.items()])

        self.hand_over(call, {"op": "metrics", "step": step, "at_ms": now, "values": plain})

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
        self.hand_over(
            lambda client: getattr(client, keep)(self.mlflow_id, str(path), folder or None),
            {"op": "artifact", "folder": folder},
            [Path(path)],
        )
        self.wait()

    def tag(self, key: str, value: str) -> None:
        """Set a tag on this run."""
        self.hand_over(
            lambda client: client.set_tag(self.mlflow_id, key, value), {"op": "tag", "key": key, "value": value}
        )

    def hand_over(self, call: Callable[[MlflowClient], object], *what: Any) -> None:
        """`attempt`, in this run's thread where it has one."""
        if self.thread is None:
            self.attempt(call, *what)
        else:
            self._handed.append(self.thread.submit(self.attempt, call, *what))

    def attempt(
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
            self._spool = Spool(self.mlflow_id, self.start)
        if operation is not None:
            self._spool.keep(operation, files)

    def end(self, status: str) -> None:
        """End the run, and the one above it, with a status of MLflow's (FINISHED, FAILED, KILLED)."""
        self.wait()
        if self._spool is not None:
            self._spool.keep({"op": "end", "status": status, "at_ms": int(time.time() * 1000)})
            self._spool.close()
        # Tried even after a loss: the store may be back, and a run left RUNNING would be a lie.
        self._lost, self.start = False, None
        for run_id in filter(None, (self.mlflow_id, self.parent_id)):
            self.hand_over(partial(_terminate, run_id, status))
        self.wait()


def _terminate(run_id: str, status: str, client: MlflowClient) -> None:
    client.set_terminated(run_id, status)


def _write_png(picture: np.ndarray, path: Path) -> None:
    import numpy as np
    from PIL import Image

    array = picture if picture.dtype == np.uint8 else (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    Image.fromarray(array).save(path, "PNG")
