"""Aligned faces by what they were made from, kept so that nothing is worked out twice.

An index in SQLite, and the pixels one face after the other in a file beside it, so that many processes write at once.
A lost or damaged store costs time, never a wrong face: pixels that do not have the digest of the index are not known.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from lapcvae.data.manifest import ImagesWriter
from lapcvae.errors import StorageError
from lapcvae.io.cache import KEYS_A_QUERY, open_database

DIGEST_BYTES = 32  # of a SHA-256


class FaceFile(NamedTuple):
    """The file of a store's pixels, as those who write into it know it; `inode` tells it from another of its name."""

    path: str
    inode: int


class FaceStore:
    """The faces of one size in a folder; a context manager, for one process at a time and those it gives places to.

    Of each face something is `made` beside its pixels: bytes, of which the first are the SHA-256 of the pixels.
    """

    def __init__(self, folder: Path, size: int) -> None:
        """Open or make the store of faces of `size` by `size` pixels. Raises `StorageError`."""
        self._path = folder / f"faces-{size}.bin"
        self._bytes = size * size * 3
        self._db = open_database(
            folder / f"faces-{size}.sqlite",
            "CREATE TABLE IF NOT EXISTS faces (key BLOB PRIMARY KEY, place INTEGER, made BLOB) WITHOUT ROWID",
        )
        try:
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            self._db.close()
            raise StorageError(f"{self._path}: cannot be opened ({error.strerror}); remove it") from None
        self.file = FaceFile(str(self._path.resolve()), os.fstat(self._handle).st_ino)
        (last,) = self._db.execute("SELECT max(place) FROM faces").fetchone()
        self._next = 0 if last is None else last + 1

    def __enter__(self) -> FaceStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        os.close(self._handle)

    def reserve(self, count: int) -> range:
        """Places for new faces, one after the other."""
        first, self._next = self._next, self._next + count
        return range(first, self._next)

    def keep(self, faces: Iterable[tuple[bytes, int, bytes]]) -> None:
        """Note key, place and what was made of faces that are written. Raises `StorageError` when the disk refuses."""
        try:
            with self._db:
                self._db.executemany("INSERT OR REPLACE INTO faces VALUES (?, ?, ?)", faces)
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self._path}: its index could not be written ({error}); free some space") from None

    def find(self, keys: Sequence[bytes]) -> dict[bytes, tuple[bytes, int]]:
        """What was made of the known ones among `keys`, and their places."""
        found: list[tuple[int, bytes, bytes]] = []
        for start in range(0, len(keys), KEYS_A_QUERY):
            some = keys[start : start + KEYS_A_QUERY]
            marks = ",".join("?" * len(some))
            found.extend(self._db.execute(f"SELECT place, key, made FROM faces WHERE key IN ({marks})", some))
        found.sort()
        pixels = self._read([place for place, _, _ in found])
        return {
            key: (made, place)
            for (place, key, made), face in zip(found, pixels, strict=True)
            if hashlib.sha256(face).digest() == made[:DIGEST_BYTES]
        }

    def copy(self, places: Sequence[int], images: ImagesWriter) -> None:
        """Append the pixels at `places`."""
        for first, count in _runs(places):
            images.take(self._handle, first * self._bytes, count)

    def _read(self, places: Sequence[int]) -> Iterator[memoryview]:
        """The pixels at each of `places`, less or nothing where the file is shorter."""
        for first, count in _runs(places):
            whole = memoryview(os.pread(self._handle, count * self._bytes, first * self._bytes))
            yield from (whole[i * self._bytes : (i + 1) * self._bytes] for i in range(count))


def _runs(places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Places that follow each other, as the first and how many: they are read and copied at once."""
    start = 0
    for i in range(1, len(places) + 1):
        if i == len(places) or places[i] != places[i - 1] + 1:
            yield places[start], i - start
            start = i


def write_face(file: FaceFile, place: int, pixels: bytes) -> None:
    """Put a face where `FaceStore.reserve` said. Raises `StorageError` when the disk refuses."""
    try:
        whole = os.pwrite(_opened(file).handle, pixels, place * len(pixels)) == len(pixels)
        refusal = "no space left"
    except OSError as error:
        whole, refusal = False, str(error.strerror)
    if not whole:
        raise StorageError(f"{file.path}: a face could not be kept ({refusal}); free some space")


class _Opened:
    """A file that stays open for the next face, and is closed when another one takes its place."""

    def __init__(self, path: str) -> None:
        self.handle = os.open(path, os.O_WRONLY)

    def __del__(self) -> None:
        os.close(self.handle)


@functools.lru_cache(maxsize=1)
def _opened(file: FaceFile) -> _Opened:
    return _Opened(file.path)
