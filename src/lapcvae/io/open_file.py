"""A file that stays open between many small reads or writes."""

from __future__ import annotations

import os
from pathlib import Path


class OpenFile:
    """A descriptor that is closed when nobody holds it any more: made for `functools.lru_cache`."""

    def __init__(self, path: Path | str, flags: int) -> None:
        """flags: as of `os.open`, whose errors this raises."""
        self.handle = os.open(path, flags)

    def __del__(self) -> None:
        if hasattr(self, "handle"):  # not where it could not be opened
            os.close(self.handle)
