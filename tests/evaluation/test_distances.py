import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.kid import poly_mmd

from lapcvae.evaluation import distances


def drawn(n: int, dimensions: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return shift + scale * np.random.default_rng(seed).standard_normal((n, dimensions))


def test_the_kernel_distance_is_kids_arithmetic() -> None:
    a, b = drawn(50, 20, 0), drawn(50, 20, 1, 0.3)
    expected = float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b)))
    assert distances.kernel_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_the_kernel_distance_is_unbiased() -> None:
    """Of equal distributions its mean is 0 even for a few pictures, within four standard errors."""
    found = [distances.kernel_distance(drawn(6, 4, i), drawn(9, 4, 10_000 + i)) for i in range(2000)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(len(found))
    assert distances.kernel_distance(drawn(500, 4, 0), drawn(500, 4, 1, 0.5)) > 0.1


def test_resampling_is_repeating_pictures_without_comparing_one_with_itself() -> None:
    a, b = drawn(7, 5, 0), drawn(6, 5, 1, 0.4)
    times_a, times_b = np.array([2, 0, 1, 1, 0, 3, 0]), np.array([1, 1, 0, 2, 1, 1])
    found = distances.kernel_distances(a, b, times_a[None].astype(float), times_b[None].astype(float))[0]
    of_a, of_b = np.repeat(np.arange(7), times_a), np.repeat(np.arange(6), times_b)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 5 + 1) ** 3)

    within_a = np.mean([kernel(a[i], a[j]) for i in of_a for j in of_a if i != j])
    within_b = np.mean([kernel(b[i], b[j]) for i in of_b for j in of_b if i != j])
    across = np.mean([kernel(a[i], b[j]) for i in of_a for j in of_b])
    assert found == pytest.approx(within_a + within_b - 2 * across)


@pytest.mark.parametrize(("n", "dimensions"), [(200, 12), (12, 12)])
def test_the_frechet_distance_is_that_of_the_matrix_root(n: int, dimensions: int) -> None:
    random = np.random.default_rng(3)
    a = drawn(n, dimensions, 0) @ random.standard_normal((dimensions, dimensions))
    b = drawn(n + 30, dimensions, 1, 0.7)
    c1, c2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(c1 + c2 - 2 * root)
    assert distances.frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-5)


def test_the_frechet_distance_where_features_outnumber_pictures() -> None:
    """Rank-deficient covariances: against the sum of roots of the eigenvalues of their product."""
    a, b = drawn(10, 40, 0), drawn(10, 40, 1, 0.2)
    c1, c2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    roots = np.sqrt(np.maximum(np.linalg.eigvals(c1 @ c2).real, 0)).sum()
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(c1 + c2) - 2 * roots
    assert distances.frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-5)
    assert distances.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_one_picture_is_no_set() -> None:
    with pytest.raises(ValueError, match="two pictures a set"):
        distances.kernel_distance(drawn(1, 4, 0), drawn(5, 4, 0))
    with pytest.raises(ValueError, match="of one network"):
        distances.frechet_distance(drawn(5, 4, 0), drawn(5, 3, 0))
