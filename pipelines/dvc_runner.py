"""The one place that calls DVC: its graph in its own order, one stage of it, or all of it.

DVC runs as a child process in a process group of its own, so that an interrupt ends the stage with it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

from lapcvae.errors import PipelineError

_GRACE_S = 10.0  # between asking the process group to stop and ending it
_TAIL_LINES = 12
_STAGE_EXIT = re.compile(r"exited with (-?\d+)$")


def stages() -> list[str]:
    """Addresses of the stages of `dvc.yaml` (such as "train@3"), each after those it needs: the order of `dvc repro`.

    Raises `PipelineError` where DVC cannot read the project.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import get_active_graph, plan_repro

    try:
        with Repo() as repo:
            plan = plan_repro(get_active_graph(repo.index.graph), repo.stage.collect("dvc.yaml"))
            return [stage.addressing for stage in plan]
    except DvcException as error:
        # The outer message names the file, the cause says what is wrong in it.
        reasons = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
        raise PipelineError("DVC cannot read the pipeline: " + ": ".join(reasons), exit_code=2) from error


def run_stage(stage: str, say: Callable[[str], None] = print) -> None:
    """Bring one stage up to date without looking at those before it; each line of output goes to `say`.

    Raises `PipelineError` with the last lines of the output and the stage's own exit code.
    """
    _dvc(["repro", "--single-item", stage], f"stage '{stage}' failed", say)


def run_everything(say: Callable[[str], None] = print) -> None:
    """Plain `dvc repro`. Raises `PipelineError` as `run_stage` does."""
    _dvc(["repro"], "the pipeline failed", say)


def _dvc(arguments: list[str], failure: str, say: Callable[[str], None]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=_environment(),
        start_new_session=True,
    )
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    stage_exit = None
    try:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                text = line.rstrip()
                say(text)
                if text:
                    tail.append(text)
                if found := _STAGE_EXIT.search(text):
                    stage_exit = int(found[1])
        code = process.wait()
    except BaseException:
        _end(process)
        raise
    if code:
        exit_code = code if stage_exit is None else stage_exit
        raise PipelineError("\n  ".join([f"{failure} (exit code {exit_code}); it said:", *tail]), exit_code)


def _environment() -> dict[str, str]:
    """`python` in a stage's command must be the interpreter that runs now, whether or not its venv is active."""
    here = str(Path(sys.executable).parent)
    return os.environ | {"PATH": os.pathsep.join([here, os.environ.get("PATH", os.defpath)])}


def _end(process: subprocess.Popen[str]) -> None:
    """End DVC and the stage under it: as Ctrl-C would, then firmly."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            continue
