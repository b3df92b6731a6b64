"""Shards of the last run, kept by hard links, so that the next one writes only those that are new."""

from __future__ import annotations

import json
import os
from pathlib import Path

from lapcvae.data.photographs import shard_in, shard_path
from lapcvae.io.atomic import read_json, write_text

_STATES = "shards.json"


class KeptShards:
    """Shards in a folder of the cache. A lost or changed one costs time, never bytes: those who ask are told it is not
    there.
    """

    def __init__(self, folder: Path | None) -> None:
        """`folder`: None to keep nothing."""
        self._folder = folder
        self._states: dict[str, list[int]] = {}
        if folder is not None:
            try:
                self._states = dict(read_json(folder / _STATES))
            except (OSError, ValueError, TypeError):
                self._states = {}

    def link(self, shard: str, path: Path) -> bool:
        """Make the shard of that name appear at `path`; returns whether it could be."""
        if self._folder is None or shard not in self._states:
            return False
        kept = shard_path(self._folder, shard)
        try:
            if _state(kept.stat()) != self._states[shard]:
                return False
            os.link(kept, path)
        except FileExistsError:  # linked already: the source has the same photographs twice
            return True
        except OSError:  # gone, or a file system that has no such links
            return False
        return True

    def keep(self, packed: Path) -> None:
        """Keep the shards of a packed folder, and no others."""
        if self._folder is None:
            return
        try:
            states = self._linked(self._folder, packed)
        except OSError:  # another file system, or one that has no such links
            states = {}
        write_text(self._folder / _STATES, json.dumps(states))  # compact: an indent is written by pure Python

    def _linked(self, folder: Path, packed: Path) -> dict[str, list[int]]:
        folder.mkdir(parents=True, exist_ok=True)
        states, kept = _states(packed), _states(folder)
        for shard in kept.keys() - states.keys():
            shard_path(folder, shard).unlink()
        for shard in states:
            if kept.get(shard) != states[shard]:
                shard_path(folder, shard).unlink(missing_ok=True)
                os.link(shard_path(packed, shard), shard_path(folder, shard))
        return states


def _states(folder: Path) -> dict[str, list[int]]:
    """Of each shard in a folder."""
    with os.scandir(folder) as entries:
        return {shard: _state(entry.stat()) for entry in entries if (shard := shard_in(entry.name))}


def _state(status: os.stat_result) -> list[int]:
    """What is another when a file was replaced or written to; not the time of change, which a link changes too."""
    return [status.st_ino, status.st_size, status.st_mtime_ns]
