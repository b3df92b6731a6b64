"""Index rows of the parts of a source that the last run read, so that the next one does not read them again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from lapcvae.data.photographs import INDEX
from lapcvae.io.atomic import read_json, write_text

_PLACES = "rows.json"
_PART_BYTES = 1 << 20


class Rows(NamedTuple):
    """Whole lines of an index that follow each other, as where they are in its file, which is open."""

    stream: BinaryIO
    first_byte: int
    end_byte: int

    def lines(self) -> Iterator[str]:
        """Each of them, with its line break; the file must not be read otherwise meanwhile."""
        self.stream.seek(self.first_byte)
        left = self.end_byte - self.first_byte
        while left > 0 and (line := self.stream.readline()):
            left -= len(line)
            yield line.decode()

    def digest(self) -> str:
        """The SHA-256 of what is there, in hex; "" where the file can have no such place."""
        digest = hashlib.sha256()
        try:
            self.stream.seek(self.first_byte)
            left = self.end_byte - self.first_byte
            while left > 0 and (part := self.stream.read(min(left, _PART_BYTES))):
                digest.update(part)
                left -= len(part)
        except (OSError, ValueError):
            return ""
        return digest.hexdigest()


class KeptRows:
    """The rows of each part, in a folder of the cache, by a key of all that decides them; a context manager.

    Lost or changed ones cost time, never bytes: they are as if they had never been kept.
    """

    def __init__(self, folder: Path | None) -> None:
        """`folder`: None to keep nothing."""
        self._folder = folder
        self._places: dict[str, tuple[int, int, str]] = {}
        self._index: BinaryIO | None = None
        if folder is not None:
            try:
                places = read_json(folder / _PLACES)
                self._places = {key: (int(first), int(end), str(sha)) for key, (first, end, sha) in places.items()}
                self._index = (folder / INDEX).open("rb")
            except (OSError, ValueError, TypeError, AttributeError, OverflowError):
                self._places = {}

    def __enter__(self) -> KeptRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._index is not None:
            self._index.close()

    def find(self, key: str) -> Rows | None:
        """The rows of that key, None if they are not known."""
        if self._index is None or key not in self._places:
            return None
        first, end, sha256 = self._places[key]
        rows = Rows(self._index, first, end)
        return rows if rows.digest() == sha256 else None

    def keep(self, packed: Path, places: Mapping[str, tuple[int, int]]) -> None:
        """Keep those rows of a packed folder's index that lie from one byte to before another, and no others."""
        if self._folder is None:
            return
        kept = self._folder / INDEX
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            kept.unlink(missing_ok=True)
            os.link(packed / INDEX, kept)
        except OSError:  # another file system, or one that has no such links
            places = {}
        with (packed / INDEX).open("rb") as index:
            noted = {key: (*place, Rows(index, *place).digest()) for key, place in places.items()}
        write_text(self._folder / _PLACES, json.dumps(noted))  # compact: an indent is written by pure Python
