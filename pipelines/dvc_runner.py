"""The one place that calls DVC: its graph in its own order, one stage of it, or all of it.

DVC runs as a child process in a process group of its own, so that an interrupt, or a deadline that passes, ends the
stage with it. A lock that another DVC command holds is waited for, up to the deadline.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from lapcvae.errors import PipelineError
from lapcvae.io.process import own_name
from pipelines import lifeline

_GRACE_S = 10.0  # between asking the process group to stop and ending it
_TAIL_LINES = 12
DEADLINE_EXIT = 124  # as of timeout(1)
REMOTE = "LAPCVAE_DVC_REMOTE"
_ALWAYS = "always changed"  # what DVC says of a stage that is run each time, whatever has changed
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
            # A `.dvc` file holds data that nothing makes: there is nothing to run.
            return [stage.addressing for stage in plan if not stage.is_data_source]
    except DvcException as error:
        # The outer message names the file, the cause says what is wrong in it.
        reasons = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
        raise PipelineError("DVC cannot read the pipeline: " + ": ".join(reasons), exit_code=2) from error


def run_stage(stage: str, say: Callable[[str], None] = print, deadline: float | None = None) -> None:
    """Bring one stage up to date without looking at those before it; each line of output goes to `say`.

    deadline: of `time.monotonic()`; when it passes, DVC and all it started are ended.
    Raises `PipelineError` with the last lines of the output and the stage's own exit code.
    """
    _dvc(["repro", "--single-item", stage], f"stage '{stage}' failed", say, deadline)


def run_everything(say: Callable[[str], None] = print) -> None:
    """Plain `dvc repro`. Raises `PipelineError` as `run_stage` does."""
    _dvc(["repro"], "the pipeline failed", say)


def is_up_to_date(stage: str = "") -> bool:
    """Whether `dvc repro` of everything, or of one stage and what it needs, would do nothing.

    The source is not looked at here: that is what the stage `source` does, each time.
    Raises `PipelineError` where DVC cannot read the project.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            changes = repo.status([stage], with_deps=True) if stage else repo.status()
            return all(change == _ALWAYS for of_stage in changes.values() for change in of_stage)
    except DvcException as error:
        raise PipelineError(f"DVC cannot tell what has changed: {error}", exit_code=2) from error


def add(path: Path, say: Callable[[str], None] = print) -> None:
    """Have DVC keep a file: its content in the cache, its digest in PATH.dvc. Safe to repeat."""
    _dvc(["add", str(path)], f"DVC could not keep {path}", say)


def forget(path: Path, say: Callable[[str], None] = print) -> None:
    """Take back `add`; the file itself stays where it is. Nothing to take back is no error."""
    note = path.with_name(f"{path.name}.dvc")
    if note.exists():
        _dvc(["remove", "--quiet", str(note)], f"DVC could not let go of {path}", say)


def restore(path: Path, say: Callable[[str], None] = print) -> None:
    """Bring back what a `.dvc` file speaks of, from the cache or else from the remote."""
    try:
        _dvc(["checkout", "--quiet", "--force", str(path)], f"DVC could not bring back {path}", say)
    except PipelineError:
        if not remote():
            raise
        push_or_pull("pull", say, [str(path)])


def remote() -> str:
    """The address of the DVC remote that the environment names, such as s3://bucket/dvc; "" for none."""
    return os.environ.get(REMOTE, "")


def push_or_pull(what: str, say: Callable[[str], None] = print, targets: list[str] | None = None) -> None:
    """`dvc push` or `dvc pull` with the remote that the environment names, written to this machine's own settings."""
    _dvc(["remote", "add", "--quiet", "--local", "--force", "--default", "environment", remote()], "DVC's remote", say)
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        _dvc(["remote", "modify", "--quiet", "--local", "environment", "endpointurl", endpoint], "DVC's remote", say)
    _dvc([what, "--quiet", *(targets or [])], f"`dvc {what}` failed", say)


def _dvc(arguments: list[str], failure: str, say: Callable[[str], None], deadline: float | None = None) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=_environment(),
        start_new_session=True,
    )
    late = threading.Event()
    timer = _start_timer(process, deadline, late)
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
    finally:
        if timer is not None:
            timer.cancel()
    if late.is_set():
        _end(process)
        raise PipelineError(f"{failure}: the deadline passed; it and all it had started were ended", DEADLINE_EXIT)
    if code:
        exit_code = code if stage_exit is None else stage_exit
        raise PipelineError("\n  ".join([f"{failure} (exit code {exit_code}); it said:", *tail]), exit_code)


def _start_timer(
    process: subprocess.Popen[str], deadline: float | None, late: threading.Event
) -> threading.Timer | None:
    if deadline is None:
        return None

    def passed() -> None:
        late.set()
        _end(process)

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), passed)
    timer.daemon = True
    timer.start()
    return timer


def _environment() -> dict[str, str]:
    """`python` in a stage's command must be the interpreter that runs now, whether or not its venv is active."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    return os.environ | {"PATH": path, lifeline.RUNNER: own_name()}


def _end(process: subprocess.Popen[str]) -> None:
    """End DVC and everything in its process group: as Ctrl-C would, then firmly. All are gone afterwards."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        until = time.monotonic() + _GRACE_S
        while time.monotonic() < until:
            process.poll()  # else DVC itself would stay in the group as a zombie
            try:
                os.killpg(process.pid, 0)
            except (ProcessLookupError, PermissionError):
                return
            time.sleep(0.05)
