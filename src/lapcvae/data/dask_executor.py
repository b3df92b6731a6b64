"""The same work on a Dask cluster that is given by its address; the only file that imports Dask, and only when used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from lapcvae.data.ahead import AheadExecutor, Item, Lost, Result, each
from lapcvae.errors import ConfigError

_CONNECT_S = 10


class DaskExecutor(AheadExecutor):
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
        super().__init__(min(workers or threads, threads))

    def __enter__(self) -> DaskExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def _submit(self, function: Callable[[Any], Any], part: list[Any]) -> Any:
        return self._client.submit(each, function, part, pure=False)

    def _result(self, handle: Any) -> list[Any]:
        try:
            found: list[Any] = handle.result()
        except self._killed:
            raise Lost from None
        return found

    def _again(self, handle: Any, function: Callable[[Any], Any], part: list[Any]) -> Any:
        return handle  # the scheduler gives what a lost worker held to another one

    def _one_by_one(
        self, function: Callable[[Item], Result], part: list[Item], crashed: Callable[[Item], Result]
    ) -> Iterator[Result]:
        for item in part:
            try:
                yield from self._result(self._submit(function, [item]))
            except Lost:
                yield crashed(item)
