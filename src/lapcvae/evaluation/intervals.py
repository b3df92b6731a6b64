"""Means with their 95 % intervals over people, and one model's against another's, as they stand in metrics.json."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lapcvae.evaluation.bootstrap import Interval, interval, paired_difference


def summary(values: np.ndarray, people: np.ndarray) -> dict[str, float]:
    """`mean` and `std` over photographs and, of two people or more, the mean's `ci95_low` and `ci95_high`."""
    found = interval(values, people)
    return {"mean": found.mean, "std": float(np.std(values)), **ends(found)}


def ends(found: Interval) -> dict[str, float]:
    """`ci95_low` and `ci95_high`; nothing where no interval can be drawn."""
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return {}
    return {"ci95_low": found.low, "ci95_high": found.high}


@dataclass(frozen=True)
class Against:
    """Two models on the same photographs: per-image columns of ours and of the other, and whom each row shows."""

    ours: dict[str, np.ndarray]
    other: dict[str, np.ndarray]
    people: np.ndarray

    def differences(self) -> dict[str, dict[str, float]]:
        """Of each column both have: ours minus the other's, `mean`, `ci95_low`, `ci95_high`; and `ratio` of means."""
        found = {}
        for name in self.ours.keys() & self.other.keys():
            mine, theirs = self.ours[name], self.other[name]
            difference = paired_difference(mine, theirs, self.people)
            ratio = {} if theirs.mean() == 0 else {"ratio": float(mine.mean() / theirs.mean())}
            found[name] = {"mean": difference.mean, **ends(difference), **ratio}
        return found
