"""Digests of files that the last run read, so that an archive of gigabytes is not read to tell that it is known.

A file is believed to be what it was while its inode, size and times are: what `dvc status` goes by too.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from lapcvae.io.atomic import read_json, write_text

SETTLED_NS = 2 * 10**9  # a file changed so lately may be again without its times being others
_NAME = "digests.json"


def state_of(status: os.stat_result, now_ns: int) -> str:
    """What is another where a file is; "" where it cannot be told, as the file was changed just before `now_ns`."""
    if status.st_ctime_ns >= now_ns - SETTLED_NS:
        return ""
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


class KnownDigests:
    """Digests of files by where they lie, in a folder of the cache. Lost or changed ones cost time, never bytes."""

    def __init__(self, folder: Path | None) -> None:
        """`folder`: None to keep nothing."""
        self._folder = folder
        self._known: dict[str, tuple[str, str]] = {}  # state and digest, by algorithm and path
        self._asked: dict[str, tuple[str, str]] = {}
        if folder is not None:
            try:
                known = read_json(folder / _NAME)
                self._known = {key: (str(state), str(digest)) for key, (state, digest) in known.items()}
            except (OSError, ValueError, TypeError, AttributeError):
                self._known = {}

    def sha256(self, path: Path) -> str:
        """In hex. Raises `OSError` where the file cannot be read."""
        return self._digest("sha256", path)

    def md5(self, path: Path) -> str:
        """Likewise."""
        return self._digest("md5", path)

    def keep(self) -> None:
        """Keep the digests that were asked for, and what was kept of other files that are as they were."""
        if self._folder is not None:
            others = {key: known for key, known in self._known.items() if _is_as_it_was(key, known[0])}
            write_text(self._folder / _NAME, json.dumps(others | self._asked))

    def _digest(self, algorithm: str, path: Path) -> str:
        key, state = f"{algorithm} {path.absolute()}", state_of(path.stat(), time.time_ns())
        for known in (self._asked.get(key), self._known.get(key)):
            if state and known and known[0] == state:
                self._asked[key] = known
                return known[1]
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
            if state and state_of(os.fstat(stream.fileno()), time.time_ns()) == state:
                self._asked[key] = state, digest
        return digest


def _is_as_it_was(key: str, state: str) -> bool:
    try:
        return state_of(Path(key.partition(" ")[2]).stat(), time.time_ns()) == state
    except (OSError, ValueError):
        return False
