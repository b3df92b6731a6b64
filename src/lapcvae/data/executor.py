"""Many small tasks on all cores: results come back in the order of the tasks, with few in flight, so memory is flat."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_AHEAD = 4  # tasks in flight a worker


@dataclass(frozen=True)
class ExecutorConfig:
    """The `executor` section of params.yaml. It changes who works, never what comes out."""

    kind: Literal["processes"]
    workers: int  # 0: one a core; 1: in this process

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError("workers must be 0 (one a core) or more")

    @property
    def count(self) -> int:
        """How many workers that means here."""
        return self.workers or len(os.sched_getaffinity(0))


def run(function: Callable[[Task], Result], tasks: Iterable[Task], config: ExecutorConfig) -> Iterator[Result]:
    """`function` of each task, in order. It must be a module's function, and its tasks and results picklable."""
    if config.count == 1:
        yield from map(function, tasks)
        return
    # spawn: a forked copy of a process that has run OpenCV's threads can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(config.count, mp_context=context)
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) >= _AHEAD * config.count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
