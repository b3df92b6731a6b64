"""A progress bar on long work: rate and time left on a terminal, silence in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(
    items: Iterable[T] | None = None, *, total: int | None = None, label: str, unit: str = "it", scale: bool = False
) -> tqdm[Any]:
    """A bar over `items` (or advanced by hand with `.update`), shown only where stderr is a terminal.

    `scale` writes large counts with k, M, G, as for bytes.
    """
    quiet = not sys.stderr.isatty()
    return tqdm(items, total=total, desc=label, unit=unit, unit_scale=scale, disable=quiet, dynamic_ncols=True)
