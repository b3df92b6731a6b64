"""The frozen test set: the photographs that every champion and challenger is measured on, fixed once.

A CSV file names them by their pixels. Photographs that come later may fall into the test split too, and are then never
trained on, but the frozen set stays what it was: a comparison over months is on the same faces. Anything else (a
photograph gone, moved to another split, aligned otherwise) is an error, never a smaller set.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lapcvae.data.manifest import Row, read_manifest
from lapcvae.errors import DataError
from lapcvae.io.atomic import sha256_file, write_text

FROZEN = Path("data/frozen_test.csv")
_COLUMNS = ("pixels_sha256", "aligned_sha256", "group", "name")


@dataclass(frozen=True)
class FrozenTest:
    """rows: of the packed images, in the file's order. groups: the person of each. digest: SHA-256 of the file."""

    rows: np.ndarray
    groups: list[str]
    digest: str


def freeze(manifest: Path, path: Path = FROZEN) -> None:
    """Fix the manifest's present test split as the frozen one. Raises `DataError` where it is empty."""
    chosen = [row for row in read_manifest(manifest) if row.status == "accepted" and row.split == "test"]
    if not chosen:
        raise DataError(f"{manifest}: no photograph is in the test split; raise `split.test_share` in params.yaml")
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows([getattr(row, column) for column in _COLUMNS] for row in chosen)
    write_text(path, stream.getvalue())


def read_frozen(manifest: Path, path: Path = FROZEN) -> FrozenTest:
    """Find the frozen photographs in the manifest of today.

    Raises `DataError` where one of them is gone, is in another split, or was aligned otherwise.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: not found; bring it back from git, or from the artifacts of an earlier gate in MLflow"
        )
    with path.open(encoding="utf-8", newline="") as stream:
        table = csv.reader(stream)
        if tuple(next(table, ())) != _COLUMNS:
            raise DataError(f"{path}: not a list of test photographs; bring it back from git")
        wanted = [dict(zip(_COLUMNS, row, strict=True)) for row in table]
    here: dict[str, Row] = {row.pixels_sha256: row for row in read_manifest(manifest) if row.status == "accepted"}
    rows = []
    for entry in wanted:
        found = here.get(entry["pixels_sha256"])
        if found is None:
            what = "is no longer in the data set"
        elif found.split != "test":
            what = f"is now in the split `{found.split}`; a model may have been trained on it"
        elif found.aligned_sha256 != entry["aligned_sha256"]:
            what = "is aligned otherwise than when the set was frozen"
        else:
            rows.append(found.row)
            continue
        raise DataError(
            f"{path}: {entry['name']} {what}. The test set must not change: take the change of data or parameters "
            f"back, or begin anew: delete {path} and name another model in `tracking.model`"
        )
    return FrozenTest(np.array(rows, dtype=np.int64), [entry["group"] for entry in wanted], sha256_file(path))
