"""The deadline of what a retraining does in its own process; stages, in processes of theirs, have `dvc_runner`'s."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lapcvae.errors import PipelineError
from pipelines.dvc_runner import DEADLINE_EXIT


@contextmanager
def kept(deadline: float, what: str) -> Iterator[None]:
    """Stop the body, and end the processes it works with, when `deadline` (of `time.monotonic()`) passes.

    Raises `PipelineError` then, in the body. Outside the main thread, which alone hears signals, nothing is stopped.
    """

    def passed(*_: object) -> None:
        for child in multiprocessing.active_children():
            child.kill()  # else a pool would wait for work that hangs
        raise PipelineError(f"{what}: the deadline passed (`retrain.deadline_s`)", DEADLINE_EXIT)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, passed)
    signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 1e-3))  # 0 would mean never
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
