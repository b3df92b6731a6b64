"""One MLflow run in its store, or, from when the store cannot be reached, in a spool that a later run delivers.

Whatever goes wrong in MLflow is no error here: the model is worth more than its record. One warning goes to stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lapcvae.registry import pipeline_run
from lapcvae.registry.crashed import end_as_crashed, end_crashed
from lapcvae.registry.operations import END, START, Operation, apply, describe
from lapcvae.registry.spool import PREFIX, Spool
from lapcvae.registry.store import first_line, open_client, open_experiment, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient


class Ids(NamedTuple):
    """What a run is called. run, parent: MLflow's names, "" where it could not be reached at the start. record: of
    the run or, without one, of the spool from which it is delivered later; "" where nothing is kept.
    """

    run: str = ""
    parent: str = ""
    record: str = ""


class Record:
    """A run that is made by the operation `start`, or one that MLflow has already."""

    def __init__(self, ids: Ids | None = None, start: Operation | None = None) -> None:
        """start: the operation that made the run; None: what MLflow refuses is lost, as nothing can make the run."""
        ids = ids or Ids()
        self.run_id, self.parent_id = ids.run, ids.parent
        self._start = start
        self._client: MlflowClient | None = None
        self._spool: Spool | None = None
        self._lost = self._warned = False

    @property
    def ids(self) -> Ids:
        """As they are now."""
        later = f"{PREFIX}{self._spool.name}" if self._spool else ""
        return Ids(self.run_id, self.parent_id, self.run_id or later)

    def do(self, operation: Operation, files: Sequence[Path] = ()) -> Ids:
        """Do an operation, in MLflow or, once that has failed, in a spool. Raises `OSError` where that cannot be."""
        if operation["op"] == START:
            self._start = operation
            self.attempt(lambda client: self._begin(client, operation))
        elif operation["op"] == END:
            self._end(operation)
        else:
            self.attempt(
                lambda client: apply(client, self.run_id, operation, files), lambda spool: spool.keep(operation, files)
            )
        return self.ids

    def attempt(self, call: Callable[[MlflowClient], None], otherwise: Callable[[Spool], None] | None = None) -> None:
        """Do one thing with MLflow; once that has failed, warn once, and do this and all after it to a spool."""
        if not self._lost:
            try:
                if self._client is None:
                    self._client = open_client()
                call(self._client)
                return
            except Exception as error:
                self._lost = True
                self._warn(error)
        if self._start is not None and self._spool is None:
            self._spool = Spool(self.run_id, self._start)
        if self._spool is not None and otherwise is not None:
            otherwise(self._spool)

    def abandon(self) -> None:
        """Who wrote the run is gone. Unless it has ended it has FAILED; the one above too, if no other writes it."""
        if self._start is None or not self.run_id:
            return
        own, client = self._start["tags"]["process"], open_client()
        for run_id in (self.run_id, self.parent_id):
            if client.get_run(run_id).data.tags.get("process") == own:
                end_as_crashed(client, run_id)

    def _begin(self, client: MlflowClient, start: Operation) -> None:
        experiment = open_experiment(client, start["experiment"])
        self.parent_id = pipeline_run.find_or_create(client, experiment, pipeline_run.Origin(**start["origin"]))
        client.update_run(self.parent_id, status="RUNNING")
        # The pipeline's run is held by whichever of its stages writes it now.
        for key in ("host", "process"):
            client.set_tag(self.parent_id, key, start["tags"][key])
        end_crashed(client, experiment)
        tags = {"mlflow.parentRunId": self.parent_id, **start["tags"]}
        made = client.create_run(experiment, start["started_ms"], tags=tags, run_name=start["name"])
        self.run_id = str(made.info.run_id)
        describe(client, self.run_id, self.parent_id, start)

    def _end(self, operation: Operation) -> None:
        if self._spool is not None:
            self._spool.keep(operation)
            self._spool.close()
        # Tried even after a loss: the store may be back, and a run left RUNNING would be a lie.
        self._lost, self._start = False, None
        for run_id in filter(None, (self.run_id, self.parent_id)):
            self.attempt(lambda client, run_id=run_id: apply(client, run_id, operation, ()))  # type: ignore[misc]

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            reason = first_line(error)
            later = "; what it should log is kept and delivered later" if self._start is not None else ""
            print(
                f"warning: MLflow at {tracking_uri()} is away ({reason}); going on without it{later}",
                file=sys.stderr,
                flush=True,
            )
        self._warned = True
