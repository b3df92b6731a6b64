"""Results kept by what they were made from, so that nothing is worked out twice.

A lost cache costs time, never bytes.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from lapcvae.errors import StorageError

KEYS_A_QUERY = 500  # SQLite allows at least 999


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
        known: dict[bytes, bytes] = {}
        for start in range(0, len(keys), KEYS_A_QUERY):
            batch = keys[start : start + KEYS_A_QUERY]
            marks = ",".join("?" * len(batch))
            known.update(self._db.execute(f"SELECT key, value FROM entries WHERE key IN ({marks})", batch))
        return known

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
