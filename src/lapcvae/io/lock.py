"""A file's lock, which the system takes back from a process that ends, however it ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lock_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock of the file, which is made where there is none; False, and nothing held, where another holds it.

    Raises `OSError` where the file's folder is not there or may not be written to.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
