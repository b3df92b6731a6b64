"""One warp from a photograph to an aligned face, with antialiasing, and what is measured on the way."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from lapcvae.data.decode import DecodeConfig, decode_again

_BLACK = 3  # grey values up to this count as black: JPEG noise on the wedges of rotated photographs
_MOST_REDUCTION = 8  # larger ones shrink the photograph first
_LEFT_TO_WARP = 2.25  # reduction that a decoding at reduced size must leave; with less left it would soften the face


class Look(NamedTuple):
    """Measures of one aligned face; grey values are 0 to 255."""

    brightness: float  # mean grey value
    contrast: float  # standard deviation of the grey values
    aligned_sharpness: float  # variance of the Laplacian of the grey values
    black_share: float  # of the crop's pixels that are black in all channels, 0 to 1


def cut(data: bytes, crop: np.ndarray, size: int, config: DecodeConfig) -> np.ndarray:
    """The face in a photograph's bytes, which have been decoded before: uint8 (size, size, 3). See `warp`.

    Raises `Unreadable`.
    """
    image, factor = decode_again(data, config, _reduction(crop) / _LEFT_TO_WARP)
    return warp(image, _of_reduced(crop, np.array([factor, factor])) if factor > 1 else crop, size)


def warp(image: np.ndarray, crop: np.ndarray, size: int) -> np.ndarray:
    """The centre crop of the template, uint8 (size, size, 3), of an RGB uint8 (H, W, 3) image.

    `crop` (2, 3) maps its pixels to those of the result (see `template.to_crop`). Where the result leaves the
    photograph it is reflected. The photograph is averaged over what a pixel of the result covers, then sampled once,
    bilinearly.
    """
    reduction = _reduction(crop)
    if reduction > _MOST_REDUCTION:
        image, crop = _shrink(image, crop, reduction / _MOST_REDUCTION * 2)
        reduction = _reduction(crop)
    if reduction > 1:
        image, crop = _part(image, crop, size, math.ceil(reduction / 2) + 1)
        image = averaged(image, reduction)
    return cv2.warpAffine(image, crop, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def averaged(image: np.ndarray, width: float) -> np.ndarray:
    """Every pixel's mean with those around it, uint8 (H, W, C), `width` (at least 1) of them each way.

    Weights of a mean over an odd number of pixels have the variance (width^2 - 1) / 12 each way. For any other `width`
    the means over the odd numbers below and above it are mixed so that it is the same.
    """
    larger = 2 * math.ceil((width - 1) / 2) + 1
    smaller = max(1, larger - 2)
    share = 1.0 if larger == smaller else (width**2 - smaller**2) / (larger**2 - smaller**2)
    wide = cv2.blur(image, (larger, larger), borderType=cv2.BORDER_REFLECT_101)
    if share == 1:
        return wide
    narrow = image if smaller == 1 else cv2.blur(image, (smaller, smaller), borderType=cv2.BORDER_REFLECT_101)
    return cv2.addWeighted(wide, share, narrow, 1 - share, 0)


def _part(image: np.ndarray, crop: np.ndarray, size: int, margin: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of a photograph that a crop shows, and `margin` pixels around; all of it where that is not inside."""
    (a, b, x), (c, d, y) = crop.tolist()
    area = a * d - b * c
    across, down = (size - 1) / 2 - x, (size - 1) / 2 - y
    middle = (d * across - b * down) / area, (a * down - c * across) / area
    reach = size / 2 * (abs(b) + abs(d)) / area + margin, size / 2 * (abs(a) + abs(c)) / area + margin
    left, top = math.floor(middle[0] - reach[0]), math.floor(middle[1] - reach[1])
    right, bottom = math.ceil(middle[0] + reach[0]) + 1, math.ceil(middle[1] + reach[1]) + 1
    if left < 0 or top < 0 or right > image.shape[1] or bottom > image.shape[0]:
        return image, crop
    moved = np.array([[a, b, x + a * left + b * top], [c, d, y + c * left + d * top]])
    return image[top:bottom, left:right], moved


def _reduction(crop: np.ndarray) -> float:
    """Source pixels a pixel of the result."""
    return 1 / math.hypot(crop[0, 0], crop[1, 0])


def _shrink(image: np.ndarray, crop: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    height, width = image.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    reduced = _of_reduced(crop, np.array([width / small[0], height / small[1]]))
    return cv2.resize(image, small, interpolation=cv2.INTER_AREA), reduced


def _of_reduced(matrix: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """`matrix` (2, 3) for a photograph of which each pixel stands for `factors` (x, y) of its own."""
    reduced = matrix.copy()
    reduced[:, 2] += matrix[:, :2] @ (factors / 2 - 0.5)
    reduced[:, :2] *= factors
    return reduced


def border_share(crops: np.ndarray, frames: np.ndarray, size: int) -> np.ndarray:
    """The share of each crop that lies outside its photograph, 0 to 1.

    (N, 2, 3) of `template.to_crop` and (N, 2) widths and heights to (N,); NaN where a crop is.
    """
    edges = np.array([[0, 0], [size, 0], [size, size], [0, size]]) - 0.5
    scales = (crops[:, :, 0] ** 2).sum(1)[:, None, None]
    corners = (edges - crops[:, None, :, 2]) @ crops[:, :, :2] / scales  # in pixels of the photograph
    inside = ((corners >= -0.5) & (corners <= frames[:, None] - 0.5)).all((1, 2))
    shares = np.where(np.isnan(scales[:, 0, 0]), np.nan, 0.0)
    for i in np.flatnonzero(~inside & ~np.isnan(shares)):
        (width, height), crop = frames[i], crops[i]
        frame = np.array([[0, 0], [width, 0], [width, height], [0, height]]) - 0.5
        placed = (frame @ crop[:, :2].T + crop[:, 2]).astype(np.float32)
        common, _ = cv2.intersectConvexConvex(placed, edges.astype(np.float32))
        shares[i] = min(1.0, max(0.0, 1 - common / size**2))
    return shares


def measure(face: np.ndarray) -> Look:
    """Measure an aligned face, uint8 (size, size, 3)."""
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    mean, spread = cv2.meanStdDev(grey)
    _, edges = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    black = 0.0
    if cv2.minMaxLoc(grey)[0] <= _BLACK:  # seldom: where all channels are black, so is the grey
        black = cv2.countNonZero(cv2.inRange(face, (0, 0, 0), (_BLACK, _BLACK, _BLACK))) / grey.size
    deviation = edges.item()
    return Look(round(mean.item(), 4), round(spread.item(), 4), round(deviation * deviation, 4), round(black, 4))
