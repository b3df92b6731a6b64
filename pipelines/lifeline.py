"""No stage outlives what started it: a thread watches, and ends the stage when DVC or the runner above it is gone.

A process that is killed outright cannot end its children. DVC killed would leave the stage it ran training on, unseen,
and writing where the next run writes. So each stage watches those above it, by process id and start time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

import psutil

from lapcvae.io.process import find, runs

RUNNER = "LAPCVAE_RUNNER"  # in the environment of what `dvc_runner` starts: who waits for it
_LOOK_S = 0.5
_GRACE_S = 10.0  # between asking the stage to stop and ending it


def watch() -> None:
    """End this process, and those it started, soon after one that it works for has died."""
    above = _parents_to_dvc()
    runner = find(os.environ.get(RUNNER, ""))
    if os.environ.get(RUNNER) or above:
        threading.Thread(target=_look, args=(above, runner), name="lifeline", daemon=True).start()


def _parents_to_dvc() -> list[psutil.Process]:
    """The parents up to DVC; none for a stage started by hand."""
    found: list[psutil.Process] = []
    try:
        for parent in psutil.Process().parents():
            found.append(parent)
            if any(os.path.basename(word) == "dvc" for word in parent.cmdline()[:3]):  # noqa: PTH119 (any word)
                return found
    except psutil.Error:
        pass
    return []


def _look(above: list[psutil.Process], runner: psutil.Process | None) -> None:
    waited_for = bool(os.environ.get(RUNNER))
    while all(map(runs, above)) and (not waited_for or (runner is not None and runs(runner))):
        time.sleep(_LOOK_S)
    with contextlib.suppress(OSError):  # who read what is said here may be the one that is gone
        print("stage: what started it is gone; it ends too", file=sys.stderr, flush=True)
    if waited_for:
        # DVC without its runner would go on and start the next stage; it is in the group that the runner made. It goes
        # first: were the shell between to go before it, it would be killed as it writes that the stage failed.
        for parent in reversed(above):
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if runs(parent) and os.getpgid(parent.pid) == os.getpgid(0):
                    parent.kill()
    os.kill(os.getpid(), signal.SIGINT)  # the work ends as by Ctrl-C: its run is marked, its scratch removed
    time.sleep(_GRACE_S)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os.kill(os.getpid(), signal.SIGKILL)
