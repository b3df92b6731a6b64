"""Many small tasks on all cores: results come back in the order of the items, with few in flight, so memory is flat."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeVar

from lapcvae.data.dask_executor import DaskExecutor

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4  # chunks in flight a worker


@dataclass(frozen=True)
class ExecutorConfig:
    """The `executor` section of params.yaml. It changes who works, never what comes out."""

    kind: Literal["processes", "dask"]
    workers: int  # 0: one a core; 1: in this process; of a cluster, how many to keep busy (0: all it has)
    address: str = ""  # of the Dask scheduler, such as tcp://10.0.0.1:8786

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError("workers must be 0 (one a core) or more")
        if self.kind == "dask" and not self.address:
            raise ValueError("kind `dask` needs `address`")


class Executor:
    """Runs a function over items; a context manager. The processes start with the first piece of work."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def run(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        chunk: int,
        crashed: Callable[[Item], Result],
    ) -> Iterator[Result]:
        """`function` of each item, in order, `chunk` items at a time.

        `function` must be a module's function, items and results picklable. An item that ends its worker's process is
        tried once more alone, and if it does so again its result is `crashed(item)`; the others lose nothing.
        """
        source = iter(items)
        if self._count == 1:
            yield from map(function, source)
            return
        waiting: deque[tuple[list[Item], Future[list[Result]]]] = deque()
        while True:
            while len(waiting) < _AHEAD * self._count and (part := list(itertools.islice(source, chunk))):
                waiting.append((part, self._submit(function, part)))
            if not waiting:
                return
            part, future = waiting.popleft()
            try:
                yield from future.result()
            except BrokenProcessPool:
                self._close()
                yield from self._one_by_one(function, part, crashed)
                waiting = deque((p, self._submit(function, p)) for p, _ in waiting)

    def _submit(self, function: Callable[[Item], Result], part: list[Item]) -> Future[list[Result]]:
        if self._pool is None:
            self._pool = _pool(self._count)
        try:
            return self._pool.submit(_each, function, part)
        except BrokenProcessPool as error:  # it broke between two submissions: the same as breaking during this one
            broken: Future[list[Result]] = Future()
            broken.set_exception(error)
            return broken

    def _one_by_one(
        self, function: Callable[[Item], Result], part: list[Item], crashed: Callable[[Item], Result]
    ) -> Iterator[Result]:
        alone = _pool(1)
        try:
            for item in part:
                try:
                    yield alone.submit(function, item).result()
                except BrokenProcessPool:
                    alone.shutdown(wait=True, cancel_futures=True)
                    alone = _pool(1)
                    yield crashed(item)
        finally:
            alone.shutdown(wait=True, cancel_futures=True)

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def open_executor(config: ExecutorConfig) -> Executor | DaskExecutor:
    """The executor that `config` names. Raises `ConfigError` where Dask is wanted and not installed or not reached."""
    if config.kind == "dask":
        return DaskExecutor(config.address, config.workers)
    return Executor(config.workers or len(os.sched_getaffinity(0)))


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawn: a forked copy of a process that has run OpenCV's threads can hang.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Make sure that a worker does not outlive a parent that was killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _each(function: Callable[[Any], Any], part: list[Any]) -> list[Any]:
    return [function(item) for item in part]
