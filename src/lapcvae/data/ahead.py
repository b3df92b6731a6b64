"""The loop that every executor shares: work is handed out a little ahead of its results, which come back in order."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_PIECES, _MOST = 8, 256  # chunks a worker, and items a chunk, of work that is known beforehand
_CHUNKS_AHEAD = 16  # in flight a worker: work for the time in which results are written; memory is bounded by the batch


class Lost(Exception):  # noqa: N818 - an outcome, not a failure of the program
    """The process that worked on a chunk has ended, or the chunk was waiting for one that did."""


class AheadExecutor(ABC):
    """Runs a function over items on several workers."""

    def __init__(self, count: int) -> None:
        self._count = count

    def ahead(self, chunk: int) -> int:
        """How many items are in hand at once, `chunk` at a time."""
        return _CHUNKS_AHEAD * self._count * chunk

    def chunk(self, items: int) -> int:
        """How many of so many items of a tenth of a millisecond or more to hand out at a time.

        Few, so that all workers end together; but a chunk costs this process as much as an item or two.
        """
        return max(1, min(_MOST, items // (_PIECES * self._count)))

    def run(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        chunk: int,
        crashed: Callable[[Item], Result],
    ) -> Iterator[Result]:
        """`function` of each item, in order, `chunk` items at a time; work begins with this call.

        `function` must be a module's function, items and results picklable. An item that ends its worker's process is
        tried once more alone, and if it does so again its result is `crashed(item)`; the others lose nothing.
        """
        source = iter(items)
        waiting: deque[tuple[list[Item], Any]] = deque()
        self._fill(waiting, function, source, chunk)
        return self._results(waiting, function, source, chunk, crashed)

    def _results(
        self,
        waiting: deque[tuple[list[Item], Any]],
        function: Callable[[Item], Result],
        source: Iterator[Item],
        chunk: int,
        crashed: Callable[[Item], Result],
    ) -> Iterator[Result]:
        while waiting:
            part, handle = waiting.popleft()
            try:
                found = self._result(handle)
            except Lost:
                yield from self._one_by_one(function, part, crashed)
                waiting = deque((p, self._again(h, function, p)) for p, h in waiting)
            else:
                yield from found
            self._fill(waiting, function, source, chunk)

    def _fill(
        self,
        waiting: deque[tuple[list[Item], Any]],
        function: Callable[[Item], Result],
        source: Iterator[Item],
        chunk: int,
    ) -> None:
        while len(waiting) * chunk < self.ahead(chunk) and (part := list(itertools.islice(source, chunk))):
            waiting.append((part, self._submit(function, part)))

    @abstractmethod
    def _submit(self, function: Callable[[Any], Any], part: list[Any]) -> Any:
        """Hand out one chunk; returns what `_result` takes."""

    @abstractmethod
    def _result(self, handle: Any) -> list[Any]:
        """Wait for a chunk. Raises `Lost`."""

    @abstractmethod
    def _again(self, handle: Any, function: Callable[[Any], Any], part: list[Any]) -> Any:
        """A handle for a chunk after another one was lost: the same, or a new one where it was lost with it."""

    @abstractmethod
    def _one_by_one(
        self, function: Callable[[Item], Result], part: list[Item], crashed: Callable[[Item], Result]
    ) -> Iterator[Result]:
        """Work on a lost chunk's items so that only those that end their process are lost."""


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """`items` in lists of `size`, the last one shorter (`itertools.batched` is of Python 3.12)."""
    source = iter(items)
    while part := list(itertools.islice(source, size)):
        yield part


def one_ahead(batches: Iterable[Item], begin: Callable[[Item], Result], finish: Callable[[Result], None]) -> None:
    """`begin` and `finish` every batch in order, each begun before the one before it is finished.

    So the workers have the next batch in hand while this process writes.
    """
    before: list[Result] = []
    for batch in batches:
        begun = begin(batch)
        for last in before:
            finish(last)
        before = [begun]
    for last in before:
        finish(last)


def each(function: Callable[[Any], Any], part: list[Any]) -> list[Any]:
    """`function` of every item of a chunk: what a worker runs."""
    return [function(item) for item in part]


def failed(error: BaseException) -> Future[list[Any]]:
    """A future that has failed already."""
    future: Future[list[Any]] = Future()
    future.set_exception(error)
    return future
