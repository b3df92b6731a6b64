"""Confidence intervals by bootstrap over identities.

Photographs of one person resemble each other, so they are not independent draws: whole people are drawn with
replacement, each with all of their photographs (the cluster bootstrap; Davison and Hinkley 1997, section 3.8). Every
photograph of a drawn person counts the same, as in the plain mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_CHUNK = 4_000_000  # counts held at a time (resamples times people), so memory does not grow with the test set


@dataclass(frozen=True)
class Interval:
    """A mean over photographs with its percentile interval, in the unit of the values. `groups`: people drawn from."""

    mean: float
    low: float
    high: float
    confidence: float
    photographs: int
    groups: int

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.high < 0

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low > 0


def interval(
    values: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The mean of `values` (N, one a photograph) and its interval, drawing whole `groups` (N names of people).

    A pure function of its arguments. Of a single person no spread can be drawn: the interval is then infinite, never
    a false certainty. Raises `ValueError` for no values, values that are not finite, or lengths that differ.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or len(values) != len(groups):
        raise ValueError(f"{values.shape} values and {len(groups)} groups: both must be one a photograph, at least one")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite")
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError("confidence must lie between 0 and 1, resamples be at least 1")
    _, owner = np.unique(np.asarray(groups), return_inverse=True)
    people = int(owner.max()) + 1
    mean = float(values.mean())
    if people == 1:
        return Interval(mean, -np.inf, np.inf, confidence, len(values), people)
    sums, counts = np.bincount(owner, values), np.bincount(owner).astype(np.float64)
    means = _resampled_means(sums, counts, resamples, np.random.default_rng([seed, 6]))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), confidence, len(values), people)


def paired_difference(
    challenger: np.ndarray,
    champion: np.ndarray,
    groups: Sequence[str] | np.ndarray,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The mean of challenger minus champion, photograph by photograph (N each), and its interval.

    Below 0 the challenger has the lower values. Raises `ValueError` as `interval` does.
    """
    challenger, champion = np.asarray(challenger, dtype=np.float64), np.asarray(champion, dtype=np.float64)
    if challenger.shape != champion.shape:
        raise ValueError(f"{challenger.shape} against {champion.shape} values: both must be of the same photographs")
    return interval(challenger - champion, groups, confidence, resamples, seed)


def _resampled_means(sums: np.ndarray, counts: np.ndarray, resamples: int, random: np.random.Generator) -> np.ndarray:
    """The mean over photographs in each resample of people; `sums` and `counts` are one a person."""
    people, means = len(sums), []
    share = np.full(people, 1 / people)
    step = max(1, _CHUNK // people)
    for start in range(0, resamples, step):
        drawn = random.multinomial(people, share, size=min(step, resamples - start))
        means.append((drawn @ sums) / (drawn @ counts))
    return np.concatenate(means)
