"""Results of one length by what they were made from, kept so that nothing is worked out twice.

An index in SQLite, and the records one after the other in files beside it, so that many processes write at once. A lost
or damaged store costs time, never a wrong result: where files are not as they were left, every record is looked at, and
those that do not have the digest of the index are forgotten.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from lapcvae.errors import StorageError
from lapcvae.io.cache import open_database, rows_of
from lapcvae.io.open_file import OpenFile

DIGEST_BYTES = 32  # of a SHA-256
_PART_BYTES = 1 << 20  # read at once: what stays in a core's cache until it is written
_LOOKED_AT = 256  # records at once, where each is looked at
_TABLES = """
CREATE TABLE IF NOT EXISTS records (place INTEGER PRIMARY KEY, key BLOB UNIQUE, made BLOB);
CREATE TABLE IF NOT EXISTS left (name TEXT PRIMARY KEY, inode INTEGER, bytes INTEGER, changed_ns INTEGER, boot TEXT);
"""


def _boot() -> str:
    """What tells this start of the machine from others, before which it may have lost what was written; or ""."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""  # not Linux


class RecordFile(NamedTuple):
    """A file of records, as those who write into it know it; `inode` tells it from another of its name."""

    path: str
    inode: int


class RecordStore:
    """Records of several parts, each part's in a file of its own; a context manager.

    For one process at a time, and those it gives places to. Of each record something is `made` beside its parts: bytes,
    of which the first are the SHA-256 of the parts, one after the other.
    """

    def __init__(self, stem: Path, lengths: Mapping[str, int]) -> None:
        """Open or make the files whose names begin with `stem`; lengths: bytes of each part. Raises `StorageError`."""
        self._lengths = dict(lengths)
        self._index = stem.with_name(f"{stem.name}.sqlite")
        self._db = open_database(self._index, _TABLES)
        self._handles: dict[str, int] = {}
        self.files: dict[str, RecordFile] = {}
        try:
            for name in self._lengths:
                path = stem.with_name(f"{stem.name}.{name}.bin")
                self._handles[name] = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                self.files[name] = RecordFile(str(path.resolve()), os.fstat(self._handles[name]).st_ino)
        except OSError as error:
            self._close()
            raise StorageError(f"{path}: cannot be opened ({error.strerror}); remove it") from None
        try:
            if not _boot() or sorted(self._db.execute("SELECT * FROM left")) != self._states():
                self._forget_damaged()
            (last,) = self._db.execute("SELECT max(place) FROM records").fetchone()
        except sqlite3.DatabaseError as error:
            self._close()
            raise StorageError(f"{self._index}: cannot be read ({error}); remove it") from None
        self._next = 0 if last is None else last + 1

    def __enter__(self) -> RecordStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                with self._db:
                    self._db.executemany("INSERT OR REPLACE INTO left VALUES (?, ?, ?, ?, ?)", self._states())
        except sqlite3.OperationalError:
            pass  # a full disk; the next who opens the store looks at every record
        finally:
            self._close()

    def reserve(self, count: int) -> range:
        """Places for new records, one after the other."""
        first, self._next = self._next, self._next + count
        return range(first, self._next)

    def keep(self, records: Iterable[tuple[bytes, int, bytes]]) -> None:
        """Note key, place and what was made of records that are written. Raises `StorageError` on a full disk."""
        try:
            with self._db:
                self._db.executemany("INSERT OR REPLACE INTO records (key, place, made) VALUES (?, ?, ?)", records)
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self._index}: could not be written ({error}); free some space") from None

    def find(self, keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, int]]:
        """What was made of the known ones among `keys`, and their places."""
        rows = rows_of(self._db, "SELECT key, made, place FROM records", keys)
        return {key: (made, place) for key, made, place in rows}

    def read(self, name: str, places: Sequence[int]) -> Iterator[bytes]:
        """A part of the records at `places`, a megabyte at a time. Raises `StorageError` where the file is cut."""
        length, handle = self._lengths[name], self._handles[name]
        for first, count in _runs(places):
            for done in range(0, count * length, _PART_BYTES):
                wanted = min(_PART_BYTES, count * length - done)
                part = os.pread(handle, wanted, first * length + done)
                if len(part) != wanted:
                    path = self.files[name].path
                    raise StorageError(f"{path}: was cut while it was read; remove it and run the command again")
                yield part

    def _forget_damaged(self) -> None:
        rows = self._db.execute("SELECT place, made FROM records ORDER BY place")
        damaged: list[tuple[int]] = []
        while some := rows.fetchmany(_LOOKED_AT):
            digests = self._digests([place for place, _ in some])
            found = zip(some, digests, strict=True)
            damaged += [(place,) for (place, made), digest in found if digest != made[:DIGEST_BYTES]]
        with self._db:
            self._db.executemany("DELETE FROM records WHERE place = ?", damaged)

    def _digests(self, places: Sequence[int]) -> Iterator[bytes]:
        """Of the records at each of `places`, of less or nothing where a file is shorter."""
        for first, count in _runs(places):
            wholes = [
                (memoryview(os.pread(self._handles[name], count * length, first * length)), length)
                for name, length in self._lengths.items()
            ]
            for i in range(count):
                digest = hashlib.sha256()
                for whole, length in wholes:
                    digest.update(whole[i * length : (i + 1) * length])
                yield digest.digest()

    def _states(self) -> list[tuple[str, int, int, int, str]]:
        states = {name: os.fstat(handle) for name, handle in self._handles.items()}
        return sorted((name, state.st_ino, state.st_size, state.st_mtime_ns, _boot()) for name, state in states.items())

    def _close(self) -> None:
        self._db.close()
        for handle in self._handles.values():
            os.close(handle)


def _runs(places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Places that follow each other, as the first and how many: they are read at once."""
    start = 0
    for i in range(1, len(places) + 1):
        if i == len(places) or places[i] != places[i - 1] + 1:
            yield places[start], i - start
            start = i


def write_record(file: RecordFile, place: int, data: bytes) -> None:
    """Put a record's part where `RecordStore.reserve` said. Raises `StorageError` when the disk refuses."""
    try:
        whole = os.pwrite(_opened(file).handle, data, place * len(data)) == len(data)
        refusal = "no space left"
    except OSError as error:
        whole, refusal = False, str(error.strerror)
    if not whole:
        raise StorageError(f"{file.path}: a record could not be kept ({refusal}); free some space")


@functools.lru_cache(maxsize=8)
def _opened(file: RecordFile) -> OpenFile:
    return OpenFile(file.path, os.O_WRONLY)
