"""Whose photographs models are measured on: rows of a packed array, with the names of the people they show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lapcvae.data.batches import PackedImages
from lapcvae.data.manifest import read_manifest
from lapcvae.errors import DataError


@dataclass(frozen=True)
class People:
    """photographs: all of them, packed. test, calibration, training: rows of held-out people, of other held-out people
    (empty where there are none), and of those a model was trained on (empty where they are not known).
    names: N, whom each row of the packed array shows.
    """

    photographs: PackedImages
    test: np.ndarray
    calibration: np.ndarray
    training: np.ndarray
    names: np.ndarray

    def two_sets(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of two sets of held-out people, equally many and at most `most` each, that share no person.

        The first is of the test people, the second of the calibration people; without these the test people are
        parted in two. The second is empty where there are not two photographs a set.
        """
        first, second = self.test, self.calibration
        if len(second) < 2:
            _, owner = np.unique(self.names[self.test], return_inverse=True)
            first, second = self.test[owner % 2 == 0], self.test[owner % 2 == 1]
        n = min(len(first), len(second), most)
        if n < 2:
            return _spread(self.test, min(len(self.test), most)), second[:0]
        return _spread(first, n), _spread(second, n)


def names_of(manifest: Path, count: int) -> np.ndarray:
    """Names of the people on the `count` accepted photographs, in the order of the packed array.

    Raises `DataError` where the manifest is missing or of other photographs.
    """
    rows = {row.row: row.group for row in read_manifest(manifest) if row.status == "accepted"}
    if sorted(rows) != list(range(count)):
        raise DataError(f"{manifest}: does not name the {count} photographs of the packed array; run `dvc repro` again")
    return np.array([rows[i] for i in range(count)])


def _spread(rows: np.ndarray, n: int) -> np.ndarray:
    """`n` of the rows, evenly spread, so that no people are favoured for the order of their names."""
    picked: np.ndarray = rows[np.arange(n) * len(rows) // n]
    return picked
