"""Packs photographs: where a shard ends follows from names and sizes, what it is called from the photographs in it.

So photographs that are added, changed or taken away change the shards that they are in, and no other.
"""

from __future__ import annotations

import hashlib
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from lapcvae.data.csv_line import line_of
from lapcvae.data.kept_rows import Rows
from lapcvae.data.kept_shards import KeptShards
from lapcvae.data.names import printable
from lapcvae.data.photographs import COLUMNS, INDEX, MOST_ROWS, ends_shard, shard_of, shard_path

_BUFFER_BYTES = 1 << 20  # written at a time


class PhotographWriter:
    """Writes a packed folder (see `data.photographs`); a context manager.

    The caller makes the folder appear whole (see `io.atomic`).
    """

    def __init__(self, folder: Path, kept: KeptShards | None = None) -> None:
        self._folder = folder
        self._kept = kept or KeptShards(None)
        self._index = (folder / INDEX).open("wb", buffering=_BUFFER_BYTES)
        self._index.write(line_of(COLUMNS).encode())
        # Rows of the shard that is being filled, but for its name.
        self._pending: list[tuple[tuple[str, str, str], tuple[int, int, str, str, str]]] = []
        self._offset = 0
        self._stream: BinaryIO | None = None
        self.stored = 0
        self.refused = 0

    def __enter__(self) -> PhotographWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.cut()
        finally:
            if self._stream is not None:
                self._stream.close()
            self._index.close()

    def store(self, name: str, identity: str, data: bytes, split: str = "", points: str = "") -> None:
        """Append one photograph's bytes; `split` and `points` as of `Entry`."""
        if self._stream is None:
            self._stream = (self._folder / "shard.partial").open("wb", buffering=_BUFFER_BYTES)
        self._stream.write(data)
        digest = hashlib.sha256(data).hexdigest()
        place = self._offset, len(data), "", split, points
        self._offset += len(data)
        self.stored += 1
        self._append(name, (printable(name), identity, digest), place)

    def refuse(self, name: str, identity: str, reason: str) -> None:
        """Account for something in the source that is not stored."""
        self.refused += 1
        self._append(name, (printable(name), identity, ""), (0, 0, reason, "", ""))

    def repeat(self, rows: Rows) -> bool:
        """Append rows that an earlier run wrote, all or none, and their shards; returns whether it could be."""
        self.cut()
        before, stored, refused = self.tell(), 0, 0
        for shard, lines in groupby(rows.lines(), shard_of):
            if shard and not self._kept.link(shard, shard_path(self._folder, shard)):
                # Shards that are linked by now are right all the same: who reads the photographs writes them anew.
                self._index.seek(before)
                self._index.truncate()
                return False
            some = list(lines)
            self._index.write("".join(some).encode())
            if shard:
                stored += len(some)
            else:
                refused += len(some)
        self.stored += stored
        self.refused += refused
        return True

    def tell(self) -> int:
        """How many bytes the index has, once a shard is ended."""
        return self._index.tell()

    def cut(self) -> None:
        """End the shard."""
        digests = "".join(digest for (_, _, digest), _ in self._pending)
        name = hashlib.sha256(digests.encode()).hexdigest()[:32]
        if self._stream is not None:
            self._stream.close()
            Path(self._stream.name).replace(shard_path(self._folder, name))
        self._index.writelines(
            line_of((*of_photograph, "" if of_place[2] else name, *of_place)).encode()
            for of_photograph, of_place in self._pending
        )
        self._stream, self._offset = None, 0
        self._pending.clear()

    def _append(self, name: str, of_photograph: tuple[str, str, str], of_place: tuple[int, int, str, str, str]) -> None:
        self._pending.append((of_photograph, of_place))
        if ends_shard(name, of_place[1]) or len(self._pending) == MOST_ROWS:
            self.cut()
