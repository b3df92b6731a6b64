"""The CelebA aligned layout (178 x 218 pixels) and the least-squares similarity that brings five points to it."""

from __future__ import annotations

import math

import numpy as np

WIDTH_PX, HEIGHT_PX = 178, 218
CROP_LEFT, CROP_TOP, CROP_SIDE = 15, 40, 148  # the published protocol: columns 15..163, rows 40..188

# Eyes and the middle of the mouth stand where CelebA's authors put them; the nose and the mouth's half-width are the
# mean of the aligned data set. x, y of left eye, right eye, nose, left and right mouth corner; left as the viewer sees.
POINTS = np.array([[69.7, 111.0], [107.2, 111.0], [88.2, 135.4], [71.7, 152.5], [105.2, 152.5]])
EYE_DISTANCE = float(np.linalg.norm(POINTS[1] - POINTS[0]))


def similarity(points: np.ndarray, target: np.ndarray = POINTS) -> np.ndarray:
    """The similarity (rotation, one scale, shift; no mirroring) from `points` to `target` with least squared error.

    Both are (N, 2); returns float64 (2, 3). The solution of Umeyama (IEEE PAMI 13(4), 1991) in the plane, where a
    rotation with a scale is one complex number. Raises `ValueError` where all `points` are one.
    """
    start, end = _complex(points), _complex(target)
    mean_start, mean_end = sum(start) / len(start), sum(end) / len(end)
    spread = sum(abs(z - mean_start) ** 2 for z in start)
    if spread < 1e-9:
        raise ValueError("all points are one point: no similarity fits")
    turn = sum((z - mean_start).conjugate() * (w - mean_end) for z, w in zip(start, end, strict=True)) / spread
    shift = mean_end - turn * mean_start
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def residual(points: np.ndarray, matrix: np.ndarray, target: np.ndarray = POINTS) -> float:
    """Root mean square distance of the mapped `points` from `target`, as a share of the template's eye distance."""
    (a, _, x), (b, _, y) = matrix.tolist()
    turn, shift = complex(a, b), complex(x, y)
    ends = zip(_complex(points), _complex(target), strict=True)
    return math.sqrt(sum(abs(turn * z + shift - w) ** 2 for z, w in ends) / len(points)) / EYE_DISTANCE


def _complex(points: np.ndarray) -> list[complex]:
    # A handful of points: plain numbers are ten times faster than arrays.
    return [complex(x, y) for x, y in points.tolist()]


def rotation_deg(matrix: np.ndarray) -> float:
    """The angle by which `matrix` turns, -180 to 180 degrees."""
    return math.degrees(math.atan2(float(matrix[1, 0]), float(matrix[0, 0])))


def to_crop(matrix: np.ndarray, size: int) -> np.ndarray:
    """From source pixels to pixels of the centre crop at `size` x `size`, given the similarity to the template.

    Pixel centres are whole numbers on both sides, so half a pixel goes on before scaling and comes off after.
    """
    gain = size / CROP_SIDE
    (a, b, x), (c, d, y) = matrix.tolist()
    right, down = gain * (x + 0.5 - CROP_LEFT) - 0.5, gain * (y + 0.5 - CROP_TOP) - 0.5
    return np.array([[gain * a, gain * b, right], [gain * c, gain * d, down]])
