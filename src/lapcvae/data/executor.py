"""Who works on photographs: this process, processes on all cores, or a Dask cluster; never what comes out."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import platform
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import forkserver
from types import TracebackType
from typing import Any, Literal

from lapcvae.data.ahead import AheadExecutor, Item, Lost, Result, each, failed
from lapcvae.data.dask_executor import DaskExecutor
from lapcvae.errors import ConfigError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h

_Handle = tuple[ProcessPoolExecutor, "Future[list[Any]]"]


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


class Executor(AheadExecutor):
    """Local processes, or this one where `count` is 1; a context manager. They start with the first piece of work."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
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
        """See `AheadExecutor.run`; with one worker, nothing is done ahead and nothing is guarded."""
        return map(function, items) if self._count == 1 else super().run(function, items, chunk, crashed)

    def _submit(self, function: Callable[[Any], Any], part: list[Any]) -> _Handle:
        if self._pool is None:
            self._pool = _pool(self._count, function)
        try:
            return self._pool, self._pool.submit(each, function, part)
        except BrokenProcessPool as error:  # it broke between two submissions: the same as breaking during this one
            return self._pool, failed(error)

    def _result(self, handle: _Handle) -> list[Any]:
        pool, future = handle
        try:
            return future.result()
        except (BrokenProcessPool, CancelledError):
            if pool is self._pool:  # another run may have noticed first, and begun a new pool
                self._close()
            raise Lost from None

    def _again(self, handle: _Handle, function: Callable[[Any], Any], part: list[Any]) -> _Handle:
        return handle if handle[0] is self._pool else self._submit(function, part)

    def _one_by_one(
        self, function: Callable[[Item], Result], part: list[Item], crashed: Callable[[Item], Result]
    ) -> Iterator[Result]:
        alone = _alone(function)
        try:
            for item in part:
                try:
                    yield alone.submit(function, item).result()
                except BrokenProcessPool:
                    alone.shutdown(wait=True, cancel_futures=True)
                    alone = _alone(function)
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
    return Executor(config.workers or _cores())


def _cores() -> int:
    """Cores that this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def head_start(module: str) -> None:
    """Begin to import the module whose functions are to be run, in the process that workers will be copies of.

    For programs, before they import it themselves: on another core the same takes no time of theirs. NumPy's linear
    algebra is left with one thread here and there, where the environment does not say otherwise.
    """
    # Else NumPy's linear algebra starts a thread a core, in both, which look for work in a loop before they sleep.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if os.name == "posix":
        multiprocessing.get_context("forkserver").set_forkserver_preload([module])
        forkserver.ensure_running()


def _pool(workers: int, function: Callable[[Any], Any]) -> ProcessPoolExecutor:
    # A forked copy of a process that has run OpenCV's threads can hang: so the copies are of a process that has done
    # nothing but import what they need, once for all of them.
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    context.set_forkserver_preload([getattr(function, "func", function).__module__])
    return ProcessPoolExecutor(workers, context, initializer=_begin)


def _alone(function: Callable[[Any], Any]) -> ProcessPoolExecutor:
    """One worker that is known to live, so that if it ends the item is to blame. Raises `ConfigError`."""
    pool = _pool(1, function)
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool:
        pool.shutdown(wait=True, cancel_futures=True)
        raise ConfigError(
            "worker processes end as soon as they begin; what they said is above. Set `executor.workers: 1` in "
            "params.yaml to work in one process; a program of your own has to begin its work under "
            '`if __name__ == "__main__":`'
        ) from None
    return pool


def _begin() -> None:
    import cv2  # not above: it would be imported before `head_start` can have others import it

    cv2.setNumThreads(1)  # a process a core does better than threads inside each
    gc.freeze()  # what has been imported stays: going through it for cycles took a fiftieth of a detector's time
    _keep_memory()
    _end_with_parent()


def _keep_memory() -> None:
    """Let freed memory stay with this process, up to the sizes that glibc itself arrives at in time.

    A detector's arrays come and go by the megabyte, and each page that was given back is cleared anew.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        library.mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def _end_with_parent() -> None:
    """Make sure that a worker does not outlive a parent that was killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
