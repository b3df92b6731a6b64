"""Packs photographs: where a shard ends and what it is called follow from the photographs in it alone.

So photographs that are added, changed or taken away change the shards that they are in, and no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from lapcvae.data.csv_line import line_of
from lapcvae.data.kept_rows import Rows
from lapcvae.data.kept_shards import KeptShards
from lapcvae.data.names import printable
from lapcvae.data.photographs import COLUMNS, INDEX, MOST_ROWS, shard_of, shard_path
from lapcvae.io.archive import DamagedMember

_SHARD_PHOTOGRAPHS = 64  # on average
_SHARD_BYTES = 64 << 20  # at most, unless one photograph alone has more
_BUFFER_BYTES = 1 << 20  # written at a time


class Changed(Exception):  # noqa: N818 - an outcome, not a failure of the program
    """A photograph is not, or no longer, what was known of it."""


class PhotographWriter:
    """Writes a packed folder (see `data.photographs`); a context manager.

    The caller makes the folder appear whole (see `io.atomic`).
    """

    def __init__(self, folder: Path, kept: KeptShards | None = None, shard_bytes: int = _SHARD_BYTES) -> None:
        self._folder = folder
        self._kept = kept or KeptShards(None)
        self._limit = shard_bytes
        self._index = (folder / INDEX).open("wb", buffering=_BUFFER_BYTES)
        self._index.write(line_of(COLUMNS).encode())
        # Of the shard that is being filled: rows but for its name, and the photographs that are yet to be read.
        self._pending: list[tuple[tuple[str, str, str], tuple[int, int, str, str, str]]] = []
        self._unread: list[tuple[str, Callable[[], bytes]]] = []
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

    def store(self, name: str, identity: str, data: bytes, split: str = "", points: str = "") -> str:
        """Append one photograph's bytes; `split` and `points` as of `Entry`. Returns the bytes' SHA-256, in hex.

        Raises `Changed` as `cut` does.
        """
        self._make_room(len(data))
        stream = self._opened()
        stream.write(data)
        digest = hashlib.sha256(data).hexdigest()
        self._append(name, identity, digest, len(data), split, points)
        return digest

    def store_known(self, name: str, identity: str, digest: str, size: int, read: Callable[[], bytes]) -> None:
        """Append one photograph whose SHA-256 and length are known; it is read only if its shard has to be written.

        `read` may raise `DamagedMember`. Raises `Changed` as `cut` does.
        """
        self._make_room(size)
        if self._stream is None:
            self._unread.append((digest, read))
        else:
            self._stream.write(_read(digest, read))
        self._append(name, identity, digest, size, "", "")

    def refuse(self, name: str, identity: str, reason: str) -> None:
        """Account for something in the source that is not stored."""
        self._pending.append(((printable(name), identity, ""), (0, 0, reason, "", "")))
        self.refused += 1
        if len(self._pending) == MOST_ROWS:
            self.cut()

    def repeat(self, rows: Rows) -> bool:
        """Append rows that an earlier run wrote, and their shards, all or none; returns whether it could be."""
        self.cut()
        linked: list[Path] = []
        for shard, _ in groupby(map(shard_of, rows.lines())):
            path = shard_path(self._folder, shard)
            if shard and not path.exists():
                if not self._kept.link(shard, path):
                    for each in linked:
                        each.unlink()
                    return False
                linked.append(path)
        for line in rows.lines():
            self._index.write(line.encode())
            if shard_of(line):
                self.stored += 1
            else:
                self.refused += 1
        return True

    def tell(self) -> int:
        """How many bytes the index has, once a shard is ended."""
        return self._index.tell()

    def cut(self) -> None:
        """End the shard. Raises `Changed` where a photograph that was known turns out to be another by now."""
        digests = "".join(digest for (_, _, digest), _ in self._pending)
        name = hashlib.sha256(digests.encode()).hexdigest()[:32]
        if digests:
            path = shard_path(self._folder, name)
            # Some are left to be read only where all of the shard are known.
            if not self._unread or not (path.exists() or self._kept.link(name, path)):
                stream = self._opened()
                stream.close()
                Path(stream.name).replace(path)
        self._index.writelines(
            line_of((*of_photograph, "" if of_place[2] else name, *of_place)).encode()
            for of_photograph, of_place in self._pending
        )
        self._stream, self._offset = None, 0
        self._pending.clear()
        self._unread.clear()

    def _make_room(self, size: int) -> None:
        if self._offset and self._offset + size > self._limit:
            self.cut()

    def _opened(self) -> BinaryIO:
        """The shard's file, with all in it that comes before the next photograph."""
        if self._stream is None:
            self._stream = (self._folder / "shard.partial").open("wb", buffering=_BUFFER_BYTES)
            self._stream.writelines(_read(digest, read) for digest, read in self._unread)
            self._unread.clear()
        return self._stream

    def _append(self, name: str, identity: str, digest: str, size: int, split: str, points: str) -> None:
        self._pending.append(((printable(name), identity, digest), (self._offset, size, "", split, points)))
        self._offset += size
        self.stored += 1
        if int(digest[:8], 16) % _SHARD_PHOTOGRAPHS == 0 or len(self._pending) == MOST_ROWS:
            self.cut()


def _read(digest: str, read: Callable[[], bytes]) -> bytes:
    try:
        data = read()
    except DamagedMember as error:
        raise Changed(str(error)) from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise Changed("its bytes are others")
    return data
