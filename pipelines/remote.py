"""What DVC made goes to the remote that the environment names; where that is away, the next run brings it there."""

from __future__ import annotations

from lapcvae.errors import PipelineError
from pipelines import dvc_runner
from pipelines.journal import SCRATCH
from pipelines.outcome import Say

_UNPUSHED = SCRATCH / "unpushed"


def mark() -> None:
    """There is something new to push."""
    _UNPUSHED.touch()


def push(tell: Say) -> None:
    """Push where something is new. A remote that is away costs nothing but time: training and gate are done."""
    if not dvc_runner.remote() or not _UNPUSHED.exists():
        return
    try:
        dvc_runner.push_or_pull("push", tell)
    except PipelineError as error:
        tell(f"remote: {dvc_runner.remote()} is away, the next run pushes: {error}")
        return
    _UNPUSHED.unlink()
