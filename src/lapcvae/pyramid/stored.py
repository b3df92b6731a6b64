"""What the pyramid stage leaves in data/pyramid/ and everything after it reads.

x1.npy ... xK.npy: see `precompute`. splits.npy: N uint8, an index into `SPLITS`, in the order of the images.
pyramid.json: kind, sides, statistics a level, the data's digest, photographs a split.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lapcvae.config import parse
from lapcvae.errors import ConfigError, DataError
from lapcvae.io.atomic import atomic_folder, read_json, write_json
from lapcvae.pyramid.filters import PyramidKind
from lapcvae.pyramid.laplacian import PyramidConfig, level_sides
from lapcvae.pyramid.precompute import precompute

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class StoredPyramid:
    """pyramid.json. `sides` has level 1 first; `statistics` maps "1" ... "K" to mean, std, band_std (0-1 scale).

    `data_digest` tells data sets apart: it is made of the photographs' digests and splits, in order.
    """

    kind: PyramidKind
    sides: tuple[int, ...]
    statistics: dict[str, Any]
    data_digest: str
    photographs: dict[str, int]

    @property
    def depth(self) -> int:
        """K, the number of levels."""
        return len(self.sides)


def write_pyramid(
    images: np.ndarray, splits: list[str], config: PyramidConfig, folder: Path, cache: Path | None = None
) -> StoredPyramid:
    """Build every level of `images` (N S S 3 uint8) and write the folder whole or not at all.

    splits: `train`, `val` or `test` of each image. cache: see `precompute`. Raises `ConfigError` for a side that
    cannot be halved down, `DataError` where images and splits do not match or nothing is left to train on.
    """
    if len(images) != len(splits):
        raise DataError(f"{len(images)} images but {len(splits)} accepted manifest rows; run `dvc repro -f align`")
    try:
        sides = level_sides(images.shape[1], config.coarsest)
    except ValueError as error:
        raise ConfigError(f"params.yaml: `pyramid.coarsest`: {error}") from None
    codes = np.array([SPLITS.index(split) for split in splits], dtype=np.uint8)
    with atomic_folder(folder) as temporary:
        statistics, digest = precompute(images, codes == 0, sides, config.kind, temporary, cache)
        np.save(temporary / "splits.npy", codes)
        stored = StoredPyramid(
            config.kind,
            tuple(sides),
            statistics,
            hashlib.sha256(codes.tobytes() + bytes.fromhex(digest)).hexdigest(),
            {name: int((codes == i).sum()) for i, name in enumerate(SPLITS)},
        )
        write_json(temporary / "pyramid.json", vars(stored))
    return stored


def read_pyramid(folder: Path) -> tuple[StoredPyramid, dict[str, np.ndarray]]:
    """pyramid.json, and the rows of each split. Raises `DataError` when a file is missing or damaged."""
    try:
        stored = parse(StoredPyramid, read_json(folder / "pyramid.json"), "", folder / "pyramid.json")
        codes = np.load(folder / "splits.npy", allow_pickle=False)
    except (OSError, ValueError, ConfigError) as error:
        raise DataError(f"{folder}: not a readable pyramid ({error}); run `dvc repro pyramid`") from None
    return stored, {name: np.flatnonzero(codes == i) for i, name in enumerate(SPLITS)}
