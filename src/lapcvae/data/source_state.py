"""Whether the source is what it was: asked before anything of it is read, and without opening what is no file."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from lapcvae.data.known_digests import SETTLED_NS, KnownDigests
from lapcvae.data.sources import SourceConfig, open_source


def state_of_source(config: SourceConfig, cache: Path | None = None) -> str:
    """SHA-256, in hex, of what is another when something in the source may be.

    Of archives that is their content, so it is the same on every machine; of a folder the names, inodes, sizes and
    times in it, so that a million files need not be read. What cannot be told (a file that was changed just now, a
    folder that cannot be listed) is waited for, two seconds at most, and is then another each time.

    `cache`: where `collect` keeps digests. Raises `SourceError` if the source cannot be trusted as a whole.
    """
    state = _state(config, cache)
    if not state:
        time.sleep(SETTLED_NS / 1e9)
        state = _state(config, cache)
    return state or hashlib.sha256(b"%d" % time.time_ns()).hexdigest()


def _state(config: SourceConfig, cache: Path | None) -> str:
    """The same, "" where it cannot be told."""
    whole, digests = hashlib.sha256(), KnownDigests(cache)
    for part in open_source(config, digests):
        digest = part.digest()
        if not digest:
            return ""
        whole.update(f"{digest}\n".encode())
    digests.keep()
    return whole.hexdigest()
