"""A progress bar on long work: rate and time left on a terminal, silence in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(items: Iterable[T] | None = None, *, total: int | None = None, label: str, unit: str = "it") -> tqdm[Any]:
    """A bar over `items` (or advanced by hand with `.update`), shown only where stderr is a terminal."""
    return tqdm(items, total=total, desc=label, unit=unit, disable=not sys.stderr.isatty(), dynamic_ncols=True)
