"""Distances between two sets of pictures by the features of a named network, and their floor.

kernel distance   the unbiased squared maximum mean discrepancy of the kernel (a.b / D + 1)^3 (Binkowski et al. 2018)
Frechet distance  |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2) of two Gaussians (Dowson and Landau 1982)

Neither is KID or FID, which are Inception's: a figure carries the name of its network, and the n of both sets, on which
a Frechet distance depends. The floor is what real people are from other real people, at the same n.
Features are N D float64.
"""

from __future__ import annotations

import numpy as np


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased, so it may be below 0 for equal distributions. Raises `ValueError` for fewer than two a set."""
    _check(a, b)
    ones_a, ones_b = np.ones((1, len(a))), np.ones((1, len(b)))
    return float(_weighted(_kernel(a, a), _kernel(a, b), _kernel(b, b), ones_a, ones_b)[0])


def kernel_distances(a: np.ndarray, b: np.ndarray, draws_a: np.ndarray, draws_b: np.ndarray) -> np.ndarray:
    """The kernel distance in each of R resamples, R float64.

    draws_a (R x len(a)), draws_b: how often each picture is in each resample. A picture is never compared with a
    repetition of itself, so that resampling adds no bias.
    """
    _check(a, b)
    return _weighted(_kernel(a, a), _kernel(a, b), _kernel(b, b), draws_a, draws_b)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Biased upwards at small n: only comparable at equal n. Raises `ValueError` for fewer than two a set."""
    _check(a, b)
    root_a, root_b = _covariance_root(a), _covariance_root(b)
    # With C1 = A A', C2 = B B' the eigenvalues of C1 C2 are the squared singular values of A' B: exact where the
    # covariances are singular, as they are for fewer pictures than features.
    crossed = np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()
    spread = np.square(root_a).sum() + np.square(root_b).sum() - 2 * crossed
    return float(np.square(a.mean(0) - b.mean(0)).sum() + max(spread, 0.0))


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features of {a.shape} and {b.shape}: two pictures a set are needed, of one network")


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    cubed: np.ndarray = (a @ b.T / a.shape[1] + 1) ** 3
    return cubed


def _weighted(
    within_a: np.ndarray, across: np.ndarray, within_b: np.ndarray, w: np.ndarray, v: np.ndarray
) -> np.ndarray:
    """a, b: N x N and M x M kernels within, N x M across; w: R x N and v: R x M how often each picture counts."""
    total: np.ndarray = _pairs(within_a, w) + _pairs(within_b, v)
    return total - 2 * ((w @ across) * v).sum(1) / (w.sum(1) * v.sum(1))


def _pairs(kernel: np.ndarray, w: np.ndarray) -> np.ndarray:
    squared = np.square(w)
    sums = ((w @ kernel) * w).sum(1) - squared @ np.diag(kernel)
    counts = w.sum(1) ** 2 - squared.sum(1)
    means: np.ndarray = sums / np.maximum(counts, 1)
    return means


def _covariance_root(x: np.ndarray) -> np.ndarray:
    """A, D x min(N, D), with A A' the covariance of x."""
    centred = (x - x.mean(0)).T / np.sqrt(len(x) - 1)
    if centred.shape[1] <= centred.shape[0]:
        return centred
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return u * s
