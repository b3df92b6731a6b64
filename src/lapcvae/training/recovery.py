"""How a training comes back: from where it was stopped, and from where it went wrong."""

from __future__ import annotations

import signal
import sys

import torch

from lapcvae.errors import StoppedError, TrainingError
from lapcvae.training.checkpoint import Checkpoint, Checkpoints
from lapcvae.training.guards import SLOWER
from lapcvae.training.processes import Processes
from lapcvae.training.settings import TrainingSettings
from lapcvae.training.signals import StopRequest
from lapcvae.training.state import TrainingState


class Recovery:
    """The last good moment of a training, on the disk where `checkpoints` are kept, and the way back to it."""

    def __init__(
        self,
        state: TrainingState,
        checkpoints: Checkpoints | None,
        settings: TrainingSettings,
        processes: Processes,
        label: str,
    ) -> None:
        self._state, self._checkpoints, self._settings = state, checkpoints, settings
        self._processes, self._label = processes, label
        self._good: Checkpoint | None = None

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint, if there is one; the first process reads for all."""
        newest = regular = None
        if self._checkpoints is not None and self._processes.first:
            newest = self._checkpoints.newest()
            regular = newest if newest is None or newest.regular else self._checkpoints.newest(regular=True)
        newest, regular = self._processes.same((newest, regular))
        if newest is None:
            return False
        self._good = regular or self._state.capture(regular=True)
        self._state.restore(newest)
        if self._processes.first:
            print(f"{self._label}: going on from update {newest.update} of {self._settings.updates}", file=sys.stderr)
        return True

    def keep(self) -> None:
        """Take this moment for the last good one."""
        self._good = self._state.capture(regular=True)
        self._save(self._good)

    def return_to_good(self, reason: str) -> None:
        """Go back to the last good checkpoint with a lower learning rate, or give up (`TrainingError`)."""
        state, most = self._state, self._settings.max_rollbacks
        rollbacks = state.rollbacks + 1
        if rollbacks > most:
            if self._checkpoints is not None:
                self._checkpoints.clear()  # so that the next start is a new one
            raise TrainingError(
                f"{self._label}: {reason}, and {most} returns to an earlier checkpoint with a lower learning rate did "
                "not help; lower `learning_rate` or `clip_norm` in params.yaml. Nothing was written"
            )
        slower, passed_over, seconds = state.rate_scale * SLOWER, state.passed_over, state.seconds
        precision = state.precision
        assert self._good is not None
        state.restore(self._good)
        state.rollbacks, state.rate_scale, state.passed_over, state.seconds = rollbacks, slower, passed_over, seconds
        state.precision = precision
        self.keep()
        if self._processes.first:
            print(
                f"warning: {self._label}: {reason}; going on from update {state.update} with {slower:g} of the "
                f"learning rate (return {rollbacks} of at most {most})",
                file=sys.stderr,
            )

    def stop_now(self, stop: StopRequest) -> bool:
        """Whether every process is to stop after this update."""
        if self._processes.count == 1:
            return stop.signum != 0
        # Processes must stop at the same update, and meeting at each one would cost: they meet where they meet anyway.
        if self._state.update % self._settings.log_interval:
            return False
        flag = torch.tensor(float(stop.signum), device=self._processes.device)
        stop.signum = int(self._processes.any(flag).item())
        return stop.signum != 0

    def stop(self, signum: int) -> None:
        """Keep where the training is, and raise `StoppedError`."""
        self._save(self._state.capture(regular=False))
        kept = "; the same command goes on from there" if self._checkpoints is not None else ""
        self.wait()
        name = signal.Signals(signum).name
        raise StoppedError(f"{self._label}: stopped by {name} after update {self._state.update}{kept}", signum)

    def wait(self) -> None:
        """Wait until what was kept is on the disk. Raises `StorageError` where it could not be written."""
        if self._checkpoints is not None:
            self._checkpoints.wait()

    def _save(self, checkpoint: Checkpoint) -> None:
        if self._checkpoints is not None and self._processes.first:
            self._checkpoints.save(checkpoint)
