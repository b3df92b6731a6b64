"""What `align` finds of some photographs that follow each other, before it is known which of them are duplicates."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from lapcvae.data.likeness import Likeness
from lapcvae.data.manifest import Row, unnumbered

REJECTED, UNMADE, MADE = range(3)  # before a face was to be made; a face was to be made, and was not; it was
_KEY_BYTES = 16  # see `io.cache.key_of`


class Found(NamedTuple):
    """Of each photograph its manifest line and what became of it, and the likeness of those not REJECTED.

    Lines are as they are in the end, but for duplicates and, where there is a face, for its number (see
    `manifest.unnumbered`).
    """

    states: bytes  # a byte a photograph: REJECTED, UNMADE or MADE
    outcomes: list[str]  # `accepted`, or the reason
    text: bytes  # the lines, one after the other
    faces: list[bytes]  # keys, of those MADE
    likeness: Likeness


def found_of(rows: Sequence[Row], keys: Sequence[bytes], likeness: Likeness) -> Found:
    """Of rows that are filled in, each with the key of its face, b"" if it was rejected before."""
    return Found(
        bytes(REJECTED if not key else UNMADE if row.row < 0 else MADE for row, key in zip(rows, keys, strict=True)),
        [row.reason or row.status for row in rows],
        "".join(map(unnumbered, rows)).encode(),
        [key for row, key in zip(rows, keys, strict=True) if row.row >= 0],
        likeness,
    )


def packed(found: Found) -> bytes:
    """`found` as bytes, for the cache."""
    parts = [found.states, "\n".join(found.outcomes).encode(), found.text, b"".join(found.faces), *found.likeness]
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def unpacked(data: bytes) -> Found:
    """What was `packed`."""
    parts, at = list[bytes](), 0
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        parts.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    states, outcomes, text, keys, *likeness = parts
    faces = [keys[i : i + _KEY_BYTES] for i in range(0, len(keys), _KEY_BYTES)]
    return Found(states, outcomes.decode().split("\n"), text, faces, Likeness(*likeness))
