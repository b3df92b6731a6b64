"""Functions that worker processes run in tests."""

from __future__ import annotations

import os
import signal

IMPORTED_BY = os.getpid()


def square(value: int) -> int:
    """The square; ends its process on multiples of 37, as a decoder may on a bad file."""
    if value and value % 37 == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return value * value


def fail(value: int) -> int:
    """Raises on 5."""
    if value == 5:
        raise ValueError("five")
    return value


def minus_one(value: int) -> int:
    """What stands for a value whose worker ended."""
    return -1


def name_process(value: int) -> int:
    """The id of the process that works."""
    return os.getpid()


def imported_for_itself(value: int) -> bool:
    """Whether the process that works has imported this module, and is no copy of one that had."""
    return os.getpid() == IMPORTED_BY
