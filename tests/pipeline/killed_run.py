"""A retraining whose process is killed outright at a named point, as the machine's memory keeper would kill it.

    python killed_run.py call:lapcvae.data.inbox:examine     as that function is called
    python killed_run.py enter:drift                         as the run enters that phase
    python killed_run.py stage:train@2                       while that stage works

Its first line says in which phase an earlier run had died.
"""

import functools
import importlib
import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

import psutil
from dvc.repo import Repo

from pipelines import dvc_runner, journal, retraining


def die(*_: Any, **__: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def die_amid_work() -> None:
    """As soon as the stage itself has been at work for a moment, below DVC."""
    while True:
        for child in psutil.Process().children(recursive=True):
            words = child.cmdline() if child.is_running() and child.status() != psutil.STATUS_ZOMBIE else []
            if any(word.startswith("pipelines.stages.") for word in words) and "dvc" not in words:
                time.sleep(0.7)
                die()
        time.sleep(0.02)


def main() -> None:
    kind, _, point = sys.argv[1].partition(":")
    enter = journal.enter

    def entered(phase: str, name: str | None = None) -> None:
        enter(phase, name)
        if kind == "enter" and phase == point:
            die()

    journal.enter = entered
    if kind == "call":
        module, _, function = point.partition(":")
        *owners, last = function.split(".")
        setattr(functools.reduce(getattr, owners, importlib.import_module(module)), last, die)

    def run_stage(stage: str, deadline: float) -> None:
        with Repo() as repo:
            needed = bool(repo.status([stage]))
        if kind == "stage" and stage == point:
            threading.Thread(target=die_amid_work, daemon=True).start()
        if needed:  # DVC would find the same, and take two seconds for it
            dvc_runner.run_stage(stage, deadline=deadline)

    name = f"killed at {sys.argv[1]}"
    os.environ["LAPCVAE_PIPELINE_RUN"] = name
    with journal.one_at_a_time(name) as held:
        assert held is not None
        print("died:", held.died["phase"] if held.died else "none", flush=True)
        retraining.retrain(run_stage)


if __name__ == "__main__":
    main()
