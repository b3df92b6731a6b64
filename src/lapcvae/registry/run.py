"""One MLflow run, written beside the work that it records.

Logging never costs training: what a run logs is handed to a thread, which hands it to a process of its own (see
`registry.scribe`), so that training begins at once and never waits for a store. If the store cannot be reached, one
warning goes to stderr, the rest of that run is kept in a spool and delivered by the next run (see `registry.spool`),
and the stage goes on.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from lapcvae.registry import scribe
from lapcvae.registry.operations import Operation, artifact, end, metrics, tag
from lapcvae.registry.record import Ids, Record
from lapcvae.registry.scribe import Scribe, ScribeGoneError

if TYPE_CHECKING:
    import numpy as np

_SETTLED_S = 10.0  # an import takes less, and a store that does not answer keeps no core busy


class Run:
    """One MLflow run being written, in order, beside this thread, until it is ended."""

    def __init__(self, start: Operation) -> None:
        """start: all that is needed to make the run (see `registry.tracking`)."""
        self._start, self._ids = start, Ids()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._handed: list[Future[None]] = []
        self._writer = _writer()
        self._hand_over(start)

    @property
    def run_id(self) -> str:
        """MLflow's id once all that was handed over is written; "" where MLflow could not be reached at the start."""
        self.wait()
        return self._ids.run

    @property
    def record_id(self) -> str:
        """What run.json names: MLflow's id, or that of the spool from which the run is delivered later."""
        self.wait()
        return self._ids.record

    def wait(self) -> None:
        """Wait until all that was handed over is written or spooled."""
        handed, self._handed = self._handed, []
        for future in handed:
            future.result()

    def settle(self) -> None:
        """Wait until the run has begun, for seconds at most: until then MLflow's import keeps a core busy."""
        futures.wait(self._handed, _SETTLED_S)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log scalar metrics at `step` in one call: once a logging interval, never once a batch."""
        self._hand_over(metrics(step, values))

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
        self._hand_over(artifact(folder), [Path(path)])
        self.wait()

    def tag(self, key: str, value: str) -> None:
        """Set a tag on this run."""
        self._hand_over(tag(key, value))

    def end(self, status: str) -> None:
        """End the run, and the one above it, with a status of MLflow's (FINISHED, FAILED, KILLED)."""
        try:
            self._hand_over(end(status))
            self.wait()
        finally:
            self._thread.shutdown()
            if isinstance(self._writer, Scribe):
                self._writer.close()

    def _hand_over(self, operation: Operation, files: Sequence[Path] = ()) -> None:
        self._handed.append(self._thread.submit(self._write, operation, files))

    def _write(self, operation: Operation, files: Sequence[Path]) -> None:
        try:
            self._ids = self._writer.do(operation, files)
        except ScribeGoneError as error:
            print(f"warning: {error}; this one writes instead", file=sys.stderr)
            self._writer = self._without_scribe(operation)
            self._ids = self._writer.do(operation, files)

    def _without_scribe(self, operation: Operation) -> Record:
        """What goes on where one who wrote has ended: with its run, or a new one if it had none."""
        record = Record(self._ids, self._start)
        if not self._ids.run and operation is not self._start:
            record.do(self._start)
        return record


def _writer() -> Record | Scribe:
    if "mlflow" in sys.modules:  # imported already: nobody else is needed
        return Record()
    try:
        return scribe.take()
    except ScribeGoneError as error:
        print(f"warning: {error}; this one writes instead", file=sys.stderr)
        return Record()


def _write_png(picture: np.ndarray, path: Path) -> None:
    import numpy as np
    from PIL import Image

    array = picture if picture.dtype == np.uint8 else (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)
    Image.fromarray(array).save(path, "PNG")
