"""Manifest lines that wait on the disk, because what becomes of them is known only when all photographs are."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from types import TracebackType

from lapcvae.data.csv_line import line_of
from lapcvae.data.manifest import Row, values_of


class RowSpool:
    """An unnamed file of manifest rows as lines, each with whether it still stands; a context manager."""

    def __init__(self) -> None:
        self._stream = tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")  # noqa: SIM115 - see __exit__
        self._stand = bytearray()

    def __enter__(self) -> RowSpool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def append(self, rows: Iterable[Row], stand: Iterable[bool]) -> None:
        """Put some rows at the end."""
        self._stream.writelines(line_of(values_of(row)) for row in rows)
        self._stand.extend(stand)

    def read(self) -> Iterator[tuple[str, bool]]:
        """All rows in order, each as its line; nothing is appended afterwards."""
        self._stream.seek(0)
        return zip(self._stream, map(bool, self._stand), strict=True)
