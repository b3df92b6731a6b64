"""Which split a photograph belongs to: a pure function of its group's name, so adding data never moves an old one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class SplitConfig:
    """The `split` section of params.yaml; what val and test leave is train."""

    val_share: float
    test_share: float
    salt: str  # another salt gives another, independent split

    def __post_init__(self) -> None:
        if min(self.val_share, self.test_share) < 0 or self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share must be at least 0 and leave something for train")


def split_of(group: str, config: SplitConfig) -> Split:
    """The split of everyone and everything called `group` (a person, or a photograph that stands alone)."""
    digest = hashlib.sha256(f"{config.salt}\0{group}".encode("utf-8", "surrogateescape")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < config.test_share:
        return "test"
    return "val" if position < config.test_share + config.val_share else "train"
