"""Index rows of the parts of a source that the last run read, so that the next one does not read them again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from lapcvae.data.photographs import INDEX
from lapcvae.io.atomic import read_json, write_json

_PLACES = "rows.json"
_PART_BYTES = 1 << 20


class Rows(NamedTuple):
    """Whole lines of an index that follow each other, as where they are in its file."""

    path: Path
    first_byte: int
    end_byte: int

    def lines(self) -> Iterator[str]:
        """Each of them, with its line break. Raises `OSError` where the file is gone."""
        with self.path.open("rb") as stream:
            stream.seek(self.first_byte)
            left = self.end_byte - self.first_byte
            while left > 0 and (line := stream.readline()):
                left -= len(line)
                yield line.decode()

    def digest(self) -> str:
        """The SHA-256 of what is there now, in hex; "" where the file is gone or can have no such place."""
        digest = hashlib.sha256()
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.first_byte)
                left = self.end_byte - self.first_byte
                while left > 0 and (part := stream.read(min(left, _PART_BYTES))):
                    digest.update(part)
                    left -= len(part)
        except (OSError, ValueError):
            return ""
        return digest.hexdigest()


class KeptRows:
    """The rows of each part, in a folder of the cache, by a key of all that decides them.

    Lost or changed ones cost time, never bytes: they are as if they had never been kept.
    """

    def __init__(self, folder: Path | None) -> None:
        """`folder`: None to keep nothing."""
        self._folder = folder
        self._places: dict[str, tuple[int, int, str]] = {}
        if folder is not None:
            try:
                places = read_json(folder / _PLACES)
                self._places = {key: (int(first), int(end), str(sha)) for key, (first, end, sha) in places.items()}
            except (OSError, ValueError, TypeError, AttributeError, OverflowError):
                self._places = {}

    def find(self, key: str) -> Rows | None:
        """The rows of that key, None if they are not known."""
        if self._folder is None or key not in self._places:
            return None
        first, end, sha256 = self._places[key]
        rows = Rows(self._folder / INDEX, first, end)
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
        digests = {key: Rows(kept, *place).digest() for key, place in places.items()}
        write_json(self._folder / _PLACES, {key: (*place, digests[key]) for key, place in places.items()})
