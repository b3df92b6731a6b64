"""By what duplicates are found among photographs: of some that follow each other, and of all of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lapcvae.data.duplicates import ACROSS, DUPLICATE, HASH_BYTES, KEEP, DuplicatesConfig, decide
from lapcvae.data.manifest import Row
from lapcvae.data.split import SPLITS

_REASONS = {DUPLICATE: "duplicate", ACROSS: "near_duplicate_across_splits"}


class Likeness(NamedTuple):
    """By what duplicates are found, of some photographs one after the other: 49 bytes each."""

    pixels: bytes  # 16 bytes each of the SHA-256 of their pixels,
    hashes: bytes  # 32 of their perceptual hash,
    ranks: bytes  # and one of their split, a place in `SPLITS`


def likeness_of(rows: Sequence[Row]) -> Likeness:
    """Of rows that have a split."""
    return Likeness(
        bytes.fromhex("".join(row.pixels_sha256[:32] for row in rows)),
        bytes.fromhex("".join(row.phash for row in rows)),
        bytes(SPLITS.index(row.split) for row in rows),
    )


@dataclass(frozen=True)
class AllLikeness:
    """By what duplicates are found, of all photographs that stand so far, held in memory."""

    pixels: bytearray = field(default_factory=bytearray)
    hashes: bytearray = field(default_factory=bytearray)
    ranks: bytearray = field(default_factory=bytearray)

    def add(self, more: Likeness) -> None:
        """Put some photographs at the end."""
        self.pixels.extend(more.pixels)
        self.hashes.extend(more.hashes)
        self.ranks.extend(more.ranks)

    def decide(self, config: DuplicatesConfig) -> dict[int, tuple[str, str]]:
        """Of each photograph that is like another: why it is rejected, or "", and the name of its group, or ""."""
        digests = np.frombuffer(self.pixels, dtype="V16")
        table = np.frombuffer(self.hashes, dtype=np.uint8).reshape(-1, HASH_BYTES)
        outcome, labels = decide(digests, table, np.frombuffer(self.ranks, dtype=np.uint8), config.max_distance_bits)
        names = _near_names(digests, labels)
        alike = np.flatnonzero((outcome != KEEP) | np.isin(labels, list(names)))
        return {i: (_REASONS.get(int(outcome[i]), ""), names.get(int(labels[i]), "")) for i in alike.tolist()}


def _near_names(digests: np.ndarray, labels: np.ndarray) -> dict[int, str]:
    """A name for each group of at least two, made of its members' pixels and so the same whatever their order."""
    groups, counts = np.unique(labels, return_counts=True)
    several = set(groups[counts > 1].tolist())
    names: dict[int, str] = {}
    for i in np.flatnonzero(np.isin(labels, list(several))):
        label, name = int(labels[i]), digests[i].tobytes().hex()
        names[label] = min(names.get(label, name), name)
    return names
