"""What `align` reads, a shard's photographs at a time: lines of the index, and what each photograph shows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from lapcvae.data.photographs import Entry, entries_of, read_shards
from lapcvae.data.sight import Sight, read_lines, sight_of
from lapcvae.errors import DataError
from lapcvae.io.cache import key_of


class Seen(NamedTuple):
    """Consecutive lines of the index, and those of `data.sight` of the photographs among them that are stored."""

    entries: list[str]
    sights: list[str]

    def key(self, version: str) -> bytes:
        """A key of all of it, and of what else counts."""
        return key_of(version, "".join(self.entries), "".join(self.sights))


def read_seen(raw: Path, landmarks: Path) -> Iterator[Seen]:
    """All photographs in order. Raises `DataError` where one of the files is missing or of another version."""
    sights = read_lines(landmarks)
    for entries, stored in read_shards(raw):
        yield Seen(entries, list(islice(sights, stored)))


def parsed(seen: Seen, raw: Path, landmarks: Path) -> list[tuple[Entry, Sight | None]]:
    """Each entry with what it shows, None if the source refused it. Raises `DataError` if they do not belong together.

    raw, landmarks: where the lines are from.
    """
    sights = iter([sight_of(line, landmarks) for line in seen.sights])
    pairs = [(entry, None if entry.reason else next(sights, None)) for entry in entries_of(seen.entries)]
    for entry, sight in pairs:
        if not entry.reason and (sight is None or sight.sha256 != entry.sha256):
            raise DataError(f"{landmarks}: is not of {raw} ({entry.name}); run `dvc repro landmarks`")
    return pairs
