"""Manifest lines that wait on the disk, because what becomes of them is known only when all photographs are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from types import TracebackType


class RowSpool:
    """An unnamed file of manifest lines, some at a time, each with its state (see `data.found`); a context manager."""

    def __init__(self) -> None:
        self._stream = tempfile.TemporaryFile()  # noqa: SIM115 - see __exit__
        self._pieces: list[tuple[int, bytes]] = []  # how many bytes of lines, and their states

    def __enter__(self) -> RowSpool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def append(self, lines: bytes, states: bytes) -> None:
        """Put some lines at the end, with a state each."""
        self._stream.write(lines)
        self._pieces.append((len(lines), states))

    def read(self) -> Iterator[tuple[bytes, bytes]]:
        """What was appended, in order; nothing is appended afterwards."""
        self._stream.seek(0)
        for length, states in self._pieces:
            yield self._stream.read(length), states
