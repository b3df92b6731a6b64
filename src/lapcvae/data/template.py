"""The CelebA aligned layout (178 x 218 pixels) and the least-squares similarity that brings five points to it."""

from __future__ import annotations

import numpy as np

WIDTH_PX, HEIGHT_PX = 178, 218
CROP_LEFT, CROP_TOP, CROP_SIDE = 15, 40, 148  # the published protocol: columns 15..163, rows 40..188

# Eyes and the middle of the mouth stand where CelebA's authors put them; the nose and the mouth's half-width are the
# mean of the aligned data set. x, y of left eye, right eye, nose, left and right mouth corner; left as the viewer sees.
POINTS = np.array([[69.7, 111.0], [107.2, 111.0], [88.2, 135.4], [71.7, 152.5], [105.2, 152.5]])
EYE_DISTANCE = float(np.linalg.norm(POINTS[1] - POINTS[0]))


def similarity(points: np.ndarray, target: np.ndarray = POINTS) -> np.ndarray:
    """The similarity (rotation, one scale, shift; no mirroring) from `points` to `target` with least squared error.

    (..., N, 2) and (N, 2) to float64 (..., 2, 3). The solution of Umeyama (IEEE PAMI 13(4), 1991) in the plane, where a
    rotation with a scale is one complex number. All NaN where all of the `points` are one.
    """
    start, end = _complex(points), _complex(target)
    mean_start, mean_end = start.mean(-1, keepdims=True), end.mean(-1, keepdims=True)
    spread = (np.abs(start - mean_start) ** 2).sum(-1)
    with np.errstate(invalid="ignore"):  # dividing by NaN
        turn = ((start - mean_start).conj() * (end - mean_end)).sum(-1) / np.where(spread < 1e-9, np.nan, spread)
    shift = mean_end[..., 0] - turn * mean_start[..., 0]
    rows = [[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]]
    return np.moveaxis(np.array(rows), (0, 1), (-2, -1))


def residual(points: np.ndarray, matrix: np.ndarray, target: np.ndarray = POINTS) -> np.ndarray:
    """Root mean square distance of the mapped `points` from `target`, as a share of the template's eye distance.

    (..., N, 2) and (..., 2, 3) to (...).
    """
    mapped = points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]
    return np.asarray(np.sqrt(((mapped - target) ** 2).sum(-1).mean(-1)) / EYE_DISTANCE)


def rotation_deg(matrix: np.ndarray) -> np.ndarray:
    """The angle by which each matrix (..., 2, 3) turns, -180 to 180 degrees."""
    return np.asarray(np.degrees(np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0])))


def _complex(points: np.ndarray) -> np.ndarray:
    return np.asarray(points[..., 0] + 1j * points[..., 1])


def to_crop(matrix: np.ndarray, size: int) -> np.ndarray:
    """From source pixels to pixels of the centre crop at `size` x `size`, given the similarity to the template.

    (..., 2, 3) both. Pixel centres are whole numbers on both sides: half a pixel goes on before scaling and comes
    off after.
    """
    crop = matrix * (size / CROP_SIDE)
    corner = np.array([CROP_LEFT, CROP_TOP])
    crop[..., 2] = (matrix[..., 2] + 0.5 - corner) * (size / CROP_SIDE) - 0.5
    return np.asarray(crop)
