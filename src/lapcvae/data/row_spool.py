"""Manifest rows that wait on the disk, because what becomes of them is known only when all photographs are."""

from __future__ import annotations

import marshal
import struct
import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from lapcvae.data.manifest import Row, values_of

_LENGTH = struct.Struct("<Q")


class RowSpool:
    """An unnamed file of rows, each with whether it still stands; a context manager."""

    def __init__(self) -> None:
        self._stream = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> RowSpool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def append(self, rows: Iterable[tuple[Row, bool]]) -> None:
        """Put some rows at the end. In one piece: marshal reads a file byte by byte, and bytes at once."""
        packed = marshal.dumps([(list(values_of(row)), stands) for row, stands in rows])
        self._stream.write(_LENGTH.pack(len(packed)) + packed)

    def read(self) -> Iterator[list[tuple[list[Any], bool]]]:
        """All rows, in order and as they were appended together, each as its values; nothing is appended afterwards."""
        self._stream.seek(0)
        while header := self._stream.read(_LENGTH.size):
            yield marshal.loads(self._stream.read(*_LENGTH.unpack(header)))
