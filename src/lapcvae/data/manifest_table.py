"""The manifest as a SQLite table: what is asked of all photographs at once takes no more memory for more of them."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from lapcvae.data.manifest import COLUMNS, TYPES, read_fields
from lapcvae.errors import DataError, StorageError

PHOTOGRAPHS, TOTALS = "photographs", "totals"
_LEFT_OUT = ("identity", "sha256", "aligned_sha256", "phash")  # long, and nothing is asked of them
_ADDED = {
    "sha256_whole": "length({sha256}) = 64 AND {sha256} NOT GLOB '*[^0-9a-f]*'",
    "group_splits": "0",
    "near_splits": "0",
}
SCHEMA = {name: kind for name, kind in TYPES.items() if name not in _LEFT_OUT} | dict.fromkeys(_ADDED, int)
"""Columns of the table of photographs and the type of their values.

`sha256_whole`: 1 if the file's digest is one, else 0. `group_splits` and `near_splits`: how many splits the person and
the group of near-duplicates of a photograph are accepted in, 0 where there is none of them.
"""
SQL_TYPES = {int: "INTEGER", float: "REAL", str: "TEXT"}


class ManifestTable(NamedTuple):
    """An open database with the table `photographs` (see `SCHEMA`), and where its file is."""

    db: sqlite3.Connection
    path: Path

    @property
    def url(self) -> str:
        """Of the database for SQLAlchemy, to read only; a path by itself would do, but for spaces and the like."""
        return f"sqlite:///file:{quote(str(self.path))}?mode=ro&uri=true"

    def ask(self, query: str) -> Iterator[tuple[Any, ...]]:
        """The rows that a query finds."""
        return self.db.execute(query)

    def put_totals(self, totals: Mapping[str, float]) -> None:
        """Write figures of the whole data set as the table `totals`, of one row, in place of an earlier one."""
        columns = ", ".join(["name TEXT NOT NULL", *(f'"{name}" REAL NOT NULL' for name in totals)])
        row = ("all photographs", *totals.values())
        with self.db:
            self.db.execute(f"DROP TABLE IF EXISTS {TOTALS}")
            self.db.execute(f"CREATE TABLE {TOTALS} ({columns}) STRICT")
            self.db.execute(f"INSERT INTO {TOTALS} VALUES ({', '.join('?' * len(row))})", row)


@contextmanager
def manifest_table(manifest: Path) -> Iterator[ManifestTable]:
    """The manifest as a table, whose file is removed afterwards.

    Raises `DataError` where there is no such manifest, or its columns are others in name or type; `StorageError` where
    the disk refuses.
    """
    with tempfile.TemporaryDirectory(prefix="lapcvae-") as scratch:
        path = Path(scratch) / "manifest.sqlite"
        with closing(sqlite3.connect(path)) as db:
            try:
                _fill(db, manifest)
            except sqlite3.OperationalError as error:
                raise StorageError(f"{path}: {error}; free some space, or set TMPDIR to a folder with some") from None
            yield ManifestTable(db, path)


def _fill(db: sqlite3.Connection, manifest: Path) -> None:
    db.execute("PRAGMA journal_mode = OFF")  # nobody is shown a table that was not finished
    db.execute("PRAGMA synchronous = OFF")
    columns = ", ".join(f'"{name}" {SQL_TYPES[kind]} NOT NULL' for name, kind in SCHEMA.items())
    db.execute(f"CREATE TABLE {PHOTOGRAPHS} ({columns}) STRICT")
    given = {name: f"column{place}" for place, name in enumerate(COLUMNS, 1)}  # as SQLite names those of VALUES
    values = ", ".join(_ADDED[name].format(**given) if name in _ADDED else given[name] for name in SCHEMA)
    row = ", ".join("?" * len(COLUMNS))
    last = [["no row"]]  # read, to be named where it is refused

    def rows() -> Iterator[list[str]]:
        for last[0] in read_fields(manifest):
            yield last[0]

    try:
        db.executemany(f"INSERT INTO {PHOTOGRAPHS} SELECT {values} FROM (VALUES ({row}))", rows())
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, ValueError) as error:
        told = f"{last[0][0]}: {error}"
        raise DataError(f"{manifest}: not a manifest of this version ({told}); run `dvc repro --force align`") from None
    for of in ("group", "near"):
        found = (
            f'SELECT "{of}" AS name, count(DISTINCT split) AS splits FROM {PHOTOGRAPHS} '
            f"WHERE status = 'accepted' AND \"{of}\" != '' GROUP BY \"{of}\""
        )
        db.execute(
            f'UPDATE {PHOTOGRAPHS} SET {of}_splits = found.splits FROM ({found}) AS found WHERE "{of}" = found.name'
        )
    db.commit()
