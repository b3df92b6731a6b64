"""What one photograph shows: its size, its hashes, its faces; and the file of them for `align`."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lapcvae.errors import DataError


class Face(NamedTuple):
    """One face in pixels of the source photograph; pixel centres are whole numbers."""

    score: float  # 0 to 1
    box: tuple[float, ...]  # left, top, width, height
    points: tuple[float, ...]  # x, y of each of POINTS


class Sight(NamedTuple):
    """What one photograph shows. Where `reason` is not empty the rest is empty: it could not be read."""

    sha256: str  # of the original bytes
    reason: str = ""
    width: int = 0  # pixels, upright
    height: int = 0
    sharpness: float = 0.0  # variance of the Laplacian of its grey values (0-255), at its own size
    pixels_sha256: str = ""  # of the decoded upright RGB pixels and their shape
    phash: str = ""  # 16 x 16 perceptual hash, 64 hex digits, lowest frequencies first
    faces: tuple[Face, ...] = ()


COLUMNS = Sight._fields
_ROWS = 256  # read at a time: JSON costs less in one piece


def pack(sight: Sight) -> bytes:
    """`sight` as bytes, for a cache."""
    return json.dumps({**sight._asdict(), "faces": [face._asdict() for face in sight.faces]}).encode()


def unpack(data: bytes) -> Sight:
    """The sight that `pack` made `data` of."""
    tree = json.loads(data)
    return Sight(**{**tree, "faces": tuple(_face(f) for f in tree["faces"])})


def _face(tree: dict[str, Any]) -> Face:
    return Face(tree["score"], tuple(tree["box"]), tuple(tree["points"]))


def csv_row(sight: Sight) -> list[object]:
    """`sight` as one row under COLUMNS."""
    return [*sight[:-1], json.dumps([face._asdict() for face in sight.faces])]


def read_sights(path: Path) -> Iterator[Sight]:
    """The rows that `find_landmarks` wrote, in order. Raises `DataError` where there is no such file."""
    if not path.is_file():
        raise DataError(f"{path}: not found; run `dvc repro landmarks` first")
    with path.open(newline="") as stream:
        rows = csv.reader(stream)
        if tuple(next(rows, ())) != COLUMNS:
            raise DataError(f"{path}: its columns are not {', '.join(COLUMNS)}; run `dvc repro --force landmarks`")
        while part := list(itertools.islice(rows, _ROWS)):
            found = json.loads(f"[{','.join(row[-1] for row in part)}]")
            for (digest, reason, width, height, sharpness, pixels, phash, _), trees in zip(part, found, strict=True):
                faces = tuple(map(_face, trees))
                yield Sight(digest, reason, int(width), int(height), float(sharpness), pixels, phash, faces)


def point_array(face: Face) -> np.ndarray:
    """A face's five points as float64 (5, 2): x, y."""
    return np.array(face.points, dtype=np.float64).reshape(5, 2)
