"""The same work on a Dask cluster that is given by its address; the only file that imports Dask, and only when used."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

from lapcvae.errors import ConfigError

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4  # chunks in flight a worker
_CONNECT_S = 10


class DaskExecutor:
    """Runs a function over items on a cluster; a context manager, used as `executor.Executor` is.

    The cluster's workers must have this package and see the same files under the same paths.
    """

    def __init__(self, address: str, workers: int) -> None:
        """Connect to the scheduler at `address`; keep `workers` busy, 0: all. Raises `ConfigError`."""
        try:
            import distributed
        except ImportError:
            raise ConfigError("executor.kind is dask, which is not installed: pip install 'lapcvae[dask]'") from None
        self._killed: type[BaseException] = distributed.KilledWorker
        try:
            self._client: Any = distributed.Client(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise ConfigError(f"executor.address: no Dask scheduler answers at {address} ({error})") from None
        threads = sum(self._client.nthreads().values())
        if not threads:
            self._client.close()
            raise ConfigError(f"executor.address: the Dask cluster at {address} has no workers")
        self._count = min(workers or threads, threads)

    def __enter__(self) -> DaskExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def run(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        chunk: int,
        crashed: Callable[[Item], Result],
    ) -> Iterator[Result]:
        """As `executor.Executor.run`: results in order; an item that ends its workers costs only itself."""
        source = iter(items)
        waiting: deque[tuple[list[Item], Any]] = deque()
        while True:
            while len(waiting) < _AHEAD * self._count and (part := list(itertools.islice(source, chunk))):
                waiting.append((part, self._submit(function, part)))
            if not waiting:
                return
            part, future = waiting.popleft()
            try:
                yield from future.result()
            except self._killed:
                yield from self._one_by_one(function, part, crashed)

    def _one_by_one(
        self, function: Callable[[Item], Result], part: list[Item], crashed: Callable[[Item], Result]
    ) -> Iterator[Result]:
        for item in part:
            try:
                yield from self._submit(function, [item]).result()
            except self._killed:
                yield crashed(item)

    def _submit(self, function: Callable[[Item], Result], part: list[Item]) -> Any:
        return self._client.submit(_each, function, part, pure=False)


def _each(function: Callable[[Any], Any], part: list[Any]) -> list[Any]:
    return [function(item) for item in part]
