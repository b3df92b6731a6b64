"""Haar's pyramid is a rotation of the image, and its per-level sum a likelihood."""

import math

import torch

from lapcvae.pyramid import haar
from lapcvae.pyramid.filters import expand, reduce
from lapcvae.pyramid.laplacian import build

DEPTH = 3


def coordinates(x: torch.Tensor) -> torch.Tensor:
    """All of a pyramid's numbers in its orthonormal basis, B N."""
    *bands, coarsest = build(x, DEPTH, "haar")
    parts = [haar.gain(k) * haar.details(band) for k, band in enumerate(bands, 1)]
    return torch.cat([part.flatten(1) for part in (*parts, haar.gain(DEPTH) * coarsest)], 1)


def test_the_transform_is_orthonormal() -> None:
    basis = torch.eye(16 * 16, dtype=torch.float64).view(-1, 1, 16, 16)
    matrix = coordinates(basis)
    assert matrix.shape == (256, 256)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(256, dtype=torch.float64), atol=1e-12, rtol=0)


def test_details_say_all_of_a_band() -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    band = build(x, 2, "haar")[0]
    torch.testing.assert_close(haar.from_details(haar.details(band)), band, atol=1e-6, rtol=0)
    torch.testing.assert_close(haar.without_means(band), band, atol=1e-6, rtol=0)


def test_what_has_a_mean_is_brought_to_the_nearest_band() -> None:
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    band = haar.without_means(x)
    assert reduce(band, "haar").abs().max() < 1e-6
    torch.testing.assert_close(x, band + expand(reduce(x, "haar"), "haar"))
    torch.testing.assert_close(haar.details(x), haar.details(band), atol=1e-6, rtol=0)


def test_reduce_is_the_mean_of_four() -> None:
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(reduce(x, "haar"), torch.nn.functional.avg_pool2d(x, 2))
    torch.testing.assert_close(reduce(expand(x, "haar"), "haar"), x)


def test_gains_double() -> None:
    assert [math.log2(haar.gain(k)) for k in (1, 2, 3)] == [0, 1, 2]
