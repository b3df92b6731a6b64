"""Manifest lines that wait on the disk, because what becomes of them is known only when all photographs are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType


class RowSpool:
    """An unnamed file of manifest lines, each with its state (see `data.found`); a context manager."""

    def __init__(self) -> None:
        self._stream = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")  # noqa: SIM115 - see __exit__
        self._states = bytearray()

    def __enter__(self) -> RowSpool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def append(self, lines: Iterable[str], states: bytes) -> None:
        """Put some lines at the end."""
        self._stream.writelines(lines)
        self._states.extend(states)

    def read(self) -> Iterator[tuple[str, int]]:
        """All lines in order, each with its state; nothing is appended afterwards."""
        self._stream.seek(0)
        return zip(self._stream, self._states, strict=True)
