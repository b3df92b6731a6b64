"""Results kept by what they were made from, so that nothing is worked out twice.

A lost cache costs time, never bytes.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from lapcvae.errors import StorageError

_KEYS_A_QUERY = 500  # SQLite allows at least 999


def open_database(path: Path, tables: str, page_bytes: int = 4096) -> sqlite3.Connection:
    """A cache's SQLite file with the tables that the statements `tables` create; a file that is none is begun anew.

    Raises `StorageError`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _connect(path, tables, page_bytes)
    except (OSError, sqlite3.Error) as error:
        raise StorageError(f"{path}: the cache cannot be opened ({error}); remove it or free the disk") from None


def _connect(path: Path, tables: str, page_bytes: int) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=60)
    try:
        db.execute(f"PRAGMA page_size={page_bytes}")
        db.execute("PRAGMA synchronous=OFF")  # a power cut may cost the cache, and a cache may be lost
        db.executescript(tables)
    except sqlite3.DatabaseError as error:
        db.close()
        if isinstance(error, sqlite3.OperationalError):
            raise
        # Not a database: a cache may be thrown away, so begin a new one.
        path.unlink()
        return _connect(path, tables, page_bytes)
    return db


def rows_of(db: sqlite3.Connection, select: str, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, which names columns and a table, whose `key` is among `keys`."""
    for start in range(0, len(keys), _KEYS_A_QUERY):
        some = keys[start : start + _KEYS_A_QUERY]
        yield from db.execute(f"{select} WHERE key IN ({','.join('?' * len(some))})", some)


class ContentCache:
    """A table from 16-byte keys to bytes in one SQLite file; a context manager, for one process at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        table = "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB)"
        self._db = open_database(path, table, page_bytes=65536)  # a photograph's levels take kilobytes

    def __enter__(self) -> ContentCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The known ones among `keys`."""
        return dict(rows_of(self._db, "SELECT key, value FROM entries", keys))

    def put(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Keep `items`, all or none. Raises `StorageError` when the disk refuses."""
        try:
            with self._db:
                self._db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", items)
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self._path}: the cache could not be written ({error}); free some space") from None


def key_of(*parts: str) -> bytes:
    """A 16-byte key of some text; every part counts, and so do the borders between parts."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).digest()[:16]
