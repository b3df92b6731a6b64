"""The SHA-256 of a folder's files as the last run found them, so that those left as they were are not read again.

A text file, a line a file of the folder, in the order in which `sources.folder_members` goes through it: two such
orders are merged line by line, whatever their number, in no memory to speak of. The last line has the SHA-256 of all
before it; a damaged file is as none.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TextIO

from lapcvae.data.names import printable, unescaped
from lapcvae.io.atomic import atomic_path, sha256_file

_LAST_BYTES = 2 + 64 + 1  # of the last line: no state, no name, a digest


class KnownFiles:
    """What is known of files, and what the next run shall know; a context manager that keeps nothing on an error."""

    def __init__(self, path: Path | None, afresh: bool = False) -> None:
        """`path`: of the text file; None to know nothing and to keep nothing. `afresh`: to know nothing."""
        self._path = path
        self._afresh = afresh
        self._closing = ExitStack()
        self._lines: Iterator[str] = iter(())
        self._line = ""
        self._out: TextIO | None = None

    def __enter__(self) -> KnownFiles:
        if self._path is not None:
            if not self._afresh and _is_whole(self._path):
                self._lines = self._closing.enter_context(self._path.open(encoding="utf-8", newline="\n"))
                self._line = next(self._lines, "")
            temporary = self._closing.enter_context(atomic_path(self._path))
            self._out = self._closing.enter_context(temporary.open("w", encoding="utf-8", newline="\n"))
            self._closing.push(self._seal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.__exit__(kind, error, trace)

    def digest_of(self, name: str, state: str) -> str:
        """The SHA-256 of a file in hex, "" if it is not known; files are asked for in the folder's order."""
        start = f"{state}\t{printable(name)}\t"
        if not self._line.startswith(start):
            if not self._line:
                return ""
            self._go_to(name)
            if not self._line.startswith(start):
                return ""
        digest = self._line[len(start) : -1]
        self._line = next(self._lines, "")
        return digest

    def note(self, name: str, state: str, digest: str) -> None:
        """Keep what was found of a file; in the folder's order too."""
        if self._out is not None:
            self._out.write(f"{state}\t{printable(name)}\t{digest}\n")

    def _seal(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._out is not None and error is None:
            self._out.flush()
            self._out.write(f"\t\t{sha256_file(self._out.name)}\n")

    def _go_to(self, name: str) -> None:
        wanted = _order(name)
        while self._line and _order(unescaped(self._line.split("\t")[1])) < wanted:
            self._line = next(self._lines, "")


def _is_whole(path: Path) -> bool:
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            last = max(0, len(data) - _LAST_BYTES)
            return data[last:] == f"\t\t{hashlib.sha256(memoryview(data)[:last]).hexdigest()}\n".encode()
    except (OSError, ValueError):  # there is none, or it is empty
        return False


def _order(name: str) -> list[tuple[bool, str]]:
    """What names sort by: of a folder first the files, then what is in its folders."""
    *folders, last = name.split("/")
    return [*((True, folder) for folder in folders), (False, last)]
