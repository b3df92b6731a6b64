"""What one photograph shows: its size, its hashes, its faces; and the file of them for `align`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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
HEADER = ",".join(COLUMNS) + "\n"


def line_of(sight: Sight) -> str:
    """`sight` as a line under COLUMNS.

    A face is sixteen numbers with spaces between: score, box, points. A semicolon stands between faces.
    """
    faces = ";".join(" ".join(map(repr, (face.score, *face.box, *face.points))) for face in sight.faces)
    return ",".join(map(str, (*sight[:-1], faces))) + "\n"


def read_sights(path: Path) -> Iterator[Sight]:
    """The rows that `find_landmarks` wrote, in order.

    Raises `DataError` where there is no such file or it is of another version.
    """
    return (sight_of(line, path) for line in read_lines(path))


def read_lines(path: Path) -> Iterator[str]:
    """The same as lines. Raises `DataError` as `read_sights` does."""
    if not path.is_file():
        raise DataError(f"{path}: not found; run `dvc repro landmarks` first")
    with path.open(encoding="utf-8", newline="\n") as stream:
        if stream.readline() != HEADER:
            raise _other(path)
        yield from stream


def sight_of(line: str, path: Path) -> Sight:
    """The row that a line holds, which is from the file `path`. Raises `DataError` if it is none."""
    try:
        digest, reason, width, height, sharpness, pixels, phash, faces = line.rstrip("\n").split(",")
        found = tuple(map(_face, faces.split(";"))) if faces else ()
        return Sight(digest, reason, int(width), int(height), float(sharpness), pixels, phash, found)
    except ValueError:
        raise _other(path) from None


def _other(path: Path) -> DataError:
    return DataError(f"{path}: is damaged or of another version; run `dvc repro --force landmarks`")


def _face(text: str) -> Face:
    score, left, top, width, height, *points = map(float, text.split(" "))
    return Face(score, (left, top, width, height), tuple(points))


def point_array(face: Face) -> np.ndarray:
    """A face's five points as float64 (5, 2): x, y."""
    return np.array(face.points, dtype=np.float64).reshape(5, 2)
