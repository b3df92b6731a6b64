"""After training, for `draw: fitted`: where in the prior's units the posteriors of photographs lie.

A prior's latents are independent of each other given the coarser level; the latents of photographs are not, least of
all on a map, whose places all show one face. With u = (z_k - R_k) / S_k for z_k drawn from q_k, over training faces,
    m = E[u],     C = Cov[E_q u] + E[Var_q u],     new faces draw z_k = R_k + S_k (m + t C^1/2 e),  e ~ N(0, I)
(ex-post density estimation: Ghosh et al. 2020, "From Variational to Deterministic Autoencoders", section 4).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from lapcvae.io.progress import progress
from lapcvae.models.cascade import Cascade, LevelPass, run_level
from lapcvae.models.level import LevelCVAE
from lapcvae.pyramid.filters import PyramidKind
from lapcvae.training.arrays import LevelArrays

_CHUNK = 256
# Faces, mirrored ones counted: several times as many as latents, and on small data all there are.
_MOST = 8192


class _Moments:
    """Sums of u over the faces seen by one level."""

    def __init__(self) -> None:
        self._count, self._first, self._second, self._spread = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())

    @torch.no_grad()
    def add(self, done: LevelPass) -> None:
        """Take in a pass at the posterior mean."""
        shrink = (-done.prior.log_std).exp()
        at = ((done.posterior.mean - done.prior.mean) * shrink).flatten(1).double()
        variance = (done.posterior.log_std.exp() * shrink).square().flatten(1).double()
        self._first, self._second = self._first + at.sum(0), self._second + at.T @ at
        self._spread, self._count = self._spread + variance.sum(0), self._count + len(at)

    def set(self, level: LevelCVAE) -> None:
        """m (D) and the lower triangular C^1/2 (D x D), worked out in fp64, are the level's from now on."""
        mean = self._first / self._count
        covariance = self._second / self._count - torch.outer(mean, mean) + torch.diag(self._spread / self._count)
        level.set_draws(mean, torch.linalg.cholesky(covariance))


def fit_draws(level: LevelCVAE, arrays: LevelArrays, rows: np.ndarray, kind: PyramidKind) -> None:
    """Set m and C^1/2 of a trained level from these photographs, as they are and mirrored; `draw: prior` is left."""
    if level.settings.draw != "fitted":
        return
    moments = _Moments()
    with torch.no_grad():
        for part, flips in _faces(rows):
            moments.add(run_level(level, *arrays.gather(part, flips), kind, None))
    moments.set(level)


def fit_draws_together(cascade: Cascade, arrays: LevelArrays, rows: np.ndarray) -> None:
    """The same for every level of a composed model; arrays: the photographs."""
    wanted = [k for k in range(1, cascade.depth + 1) if cascade.level(k).settings.draw == "fitted"]
    moments = {k: _Moments() for k in wanted}
    for part, flips in _faces(rows) if wanted else ():
        passes = cascade.reconstruct(arrays.gather(part, flips)[0])
        for k in wanted:
            moments[k].add(passes[k - 1])
    for k in wanted:
        moments[k].set(cascade.level(k))


def _faces(rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and orientations, evenly spread where there are more than `_MOST`."""
    count = min(2 * len(rows), _MOST)
    pairs = np.arange(count) * (2 * len(rows)) // count
    with progress(total=count, label="draws", unit="image") as bar:
        for start in range(0, count, _CHUNK):
            part = pairs[start : start + _CHUNK]
            yield rows[part // 2], part % 2
            bar.update(len(part))
