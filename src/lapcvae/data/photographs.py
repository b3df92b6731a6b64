"""Original photographs, packed: their untouched bytes one after the other in bounded shards, and one index row each.

Names live in the index only and never on the file system, so no name can do harm.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from lapcvae.data.names import printable
from lapcvae.errors import DataError
from lapcvae.io.open_file import OpenFile

INDEX = "index.csv"
SHARD_BYTES = 256 << 20
_BUFFER_BYTES = 1 << 20  # written at a time


class Entry(NamedTuple):
    """One row of the index. `reason` is empty for a stored photograph; a refused one has shard -1 and no bytes."""

    name: str  # as in the source, escaped to one printable line
    identity: str  # who or what the photograph is of, as far as the source says; empty if it does not
    sha256: str  # of the original bytes; empty if refused
    shard: int  # number of the shard file, -1 if refused
    offset: int  # first byte in the shard
    bytes: int  # length in bytes
    reason: str  # one of `reasons.REASONS`, or empty
    split: str = ""  # that the source's makers gave it, or empty
    points: str = ""  # x and y of five points that the makers gave it, ten numbers with spaces between, or empty


COLUMNS = Entry._fields


def shard_path(folder: Path, shard: int) -> Path:
    """Where shard number `shard` of a packed folder lies."""
    return folder / f"photographs-{shard:05d}.bin"


class PhotographWriter:
    """Writes a packed folder; a context manager. The caller makes the folder appear whole (see `io.atomic`)."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._limit = shard_bytes
        self._shard = -1
        self._offset = 0
        self._stream: BinaryIO | None = None
        self._index = (folder / INDEX).open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._index, lineterminator="\n")
        self._rows.writerow(COLUMNS)
        self.stored = 0
        self.refused = 0

    def __enter__(self) -> PhotographWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._stream is not None:
                self._stream.close()
        finally:
            self._index.close()

    def store(self, name: str, identity: str, data: bytes, split: str = "", points: str = "") -> None:
        """Append one photograph's bytes; `split` and `points` as of `Entry`."""
        if self._stream is None or (self._offset and self._offset + len(data) > self._limit):
            self._next_shard()
        assert self._stream is not None
        self._stream.write(data)
        digest = hashlib.sha256(data).hexdigest()
        self._row(Entry(printable(name), identity, digest, self._shard, self._offset, len(data), "", split, points))
        self._offset += len(data)
        self.stored += 1

    def refuse(self, name: str, identity: str, reason: str) -> None:
        """Account for something in the source that is not stored."""
        self._row(Entry(printable(name), identity, "", -1, 0, 0, reason))
        self.refused += 1

    def _row(self, entry: Entry) -> None:
        self._rows.writerow(entry)

    def _next_shard(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._shard += 1
        self._offset = 0
        self._stream = shard_path(self._folder, self._shard).open("wb", buffering=_BUFFER_BYTES)


def read_index(folder: Path) -> Iterator[Entry]:
    """Every entry of a packed folder, in the source's order. Raises `DataError` where there is no such index."""
    path = folder / INDEX
    try:
        stream = path.open(encoding="utf-8", newline="")
    except FileNotFoundError:
        raise _without_index(path) from None
    with stream:
        rows = csv.reader(stream)
        if tuple(next(rows, ())) != COLUMNS:
            raise DataError(f"{path}: its columns are not {', '.join(COLUMNS)}; run `dvc repro --force download`")
        for row in rows:
            name, identity, digest, shard, offset, size, reason, split, points = row
            yield Entry(name, identity, digest, int(shard), int(offset), int(size), reason, split, points)


class PackedFolder(NamedTuple):
    """A packed folder, as those who read photographs from it know it."""

    path: str
    state: str  # another one when any of its files is another or was changed: readers keep them open


def packed_folder(folder: Path) -> PackedFolder:
    """What `read_photograph` needs of `folder`, in any process. Raises `DataError` where there is no index."""
    if not (folder / INDEX).is_file():
        raise _without_index(folder / INDEX)
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    states = [(name, status.st_ino, status.st_ctime_ns) for name, status in files]
    return PackedFolder(str(folder.resolve()), hashlib.sha256(repr(states).encode()).hexdigest())


def read_photograph(folder: PackedFolder, shard: int, offset: int, size: int) -> bytes:
    """The original bytes of one photograph. Raises `DataError` if its shard is gone or ends before it does."""
    data = os.pread(_shard(folder, shard).handle, size, offset)
    if len(data) != size:
        path = shard_path(Path(folder.path), shard)
        raise DataError(f"{path}: ends before byte {offset + size}; run `dvc repro --force download`")
    return data


@functools.lru_cache(maxsize=4)
def _shard(folder: PackedFolder, shard: int) -> OpenFile:
    path = shard_path(Path(folder.path), shard)
    try:
        return OpenFile(path, os.O_RDONLY)
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run `dvc repro --force download`") from None


def _without_index(path: Path) -> DataError:
    return DataError(f"{path}: not found; run `dvc repro download` first")
