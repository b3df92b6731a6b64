"""Original photographs, packed: their untouched bytes one after the other in small shards, and one index row each.

Names live in the index only and never on the file system, so no name can do harm.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from lapcvae.errors import DataError
from lapcvae.io.open_file import OpenFile

INDEX = "index.csv"
MOST_ROWS = 4096  # of a shard, those of what was refused between its photographs too: they are held in memory
_SHARD_PHOTOGRAPHS = 64  # on average, or fewer,
_SHARD_BYTES = 1 << 20  # where they are large: of a shard that gets a new one, all are read again
_STEM, _ENDING = "photographs-", ".bin"


class Entry(NamedTuple):
    """One row of the index. `reason` is empty for a stored photograph; a refused one has no shard and no bytes."""

    name: str  # as in the source, escaped to one printable line
    identity: str  # who or what the photograph is of, as far as the source says; empty if it does not
    sha256: str  # of the original bytes; empty if refused
    shard: str  # name of the shard, which its content gives it; empty if refused
    offset: int  # first byte in the shard
    bytes: int  # length in bytes
    reason: str  # one of `reasons.REASONS`, or empty
    split: str = ""  # that the source's makers gave it, or empty
    points: str = ""  # x and y of five points that the makers gave it, ten numbers with spaces between, or empty


COLUMNS = Entry._fields
_AFTER_SHARD = len(COLUMNS) - 1 - COLUMNS.index("shard")  # columns, none of which has a comma in it


def shard_path(folder: Path, shard: str) -> Path:
    """Where a shard of a packed folder lies."""
    return folder / f"{_STEM}{shard}{_ENDING}"


def shard_in(file: str) -> str:
    """The name of the shard that a file of a packed folder is, "" if it is none."""
    return file[len(_STEM) : -len(_ENDING)] if file.startswith(_STEM) and file.endswith(_ENDING) else ""


def read_index(folder: Path) -> Iterator[Entry]:
    """Every entry of a packed folder, in the source's order. Raises `DataError` where there is no such index."""
    return entries_of(read_lines(folder))


def read_lines(folder: Path) -> Iterator[str]:
    """The same as lines, which takes a fraction of the time. Raises `DataError` as `read_index` does."""
    path = folder / INDEX
    try:
        stream = path.open(encoding="utf-8", newline="\n")
    except FileNotFoundError:
        raise _without_index(path) from None
    with stream:
        if next(stream, "").rstrip("\n") != ",".join(COLUMNS):
            raise DataError(f"{path}: its columns are not {', '.join(COLUMNS)}; run `dvc repro --force download`")
        yield from stream


def read_shards(folder: Path) -> Iterator[tuple[list[str], int]]:
    """The lines, those of a shard at a time, with how many of them are of stored photographs.

    What was refused is with the photographs before it, as far as `MOST_ROWS` lines go.
    """
    lines, stored, last = list[str](), 0, ""
    for line in read_lines(folder):
        shard = shard_of(line)
        if lines and (shard not in ("", last) or len(lines) == MOST_ROWS):
            yield lines, stored
            lines, stored = [], 0
        last = shard or last
        lines.append(line)
        stored += shard != ""
    if lines:
        yield lines, stored


def entries_of(lines: Iterable[str]) -> Iterator[Entry]:
    """The entries that lines of the index hold."""
    for name, identity, digest, shard, offset, size, reason, split, points in csv.reader(lines):
        yield Entry(name, identity, digest, shard, int(offset), int(size), reason, split, points)


def ends_shard(name: str, size: int) -> bool:
    """Whether a shard ends after what has that name and size in bytes in the source.

    One name in 64; where photographs are larger than 16 kB, as many more as make a shard a megabyte on average.
    """
    share = max(1 / _SHARD_PHOTOGRAPHS, size / _SHARD_BYTES)
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) < share * 2**32


def shard_of(line: str) -> str:
    """The name of the shard that a line of the index names, "" if what it is of was refused."""
    return line.rsplit(",", _AFTER_SHARD + 1)[1]


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


def read_photograph(folder: PackedFolder, shard: str, offset: int, size: int) -> bytes:
    """The original bytes of one photograph. Raises `DataError` if its shard is gone or ends before it does."""
    data = os.pread(_shard(folder, shard).handle, size, offset)
    if len(data) != size:
        path = shard_path(Path(folder.path), shard)
        raise DataError(f"{path}: ends before byte {offset + size}; run `dvc repro --force download`")
    return data


@functools.lru_cache(maxsize=4)
def _shard(folder: PackedFolder, shard: str) -> OpenFile:
    path = shard_path(Path(folder.path), shard)
    try:
        return OpenFile(path, os.O_RDONLY)
    except FileNotFoundError:
        raise DataError(f"{path}: not found; run `dvc repro --force download`") from None


def _without_index(path: Path) -> DataError:
    return DataError(f"{path}: not found; run `dvc repro download` first")
