"""The loops of pyramid/compiled.py. Planes are N H W, fp32, C-contiguous; the arithmetic is that of pyramid/filters.py.

Compiled at the first use, and kept beside this file (or where NUMBA_CACHE_DIR says).
"""

from __future__ import annotations

import numpy as np
from numba import njit

_HALF, _QUARTER, _EIGHTH, _SIXTEENTH = (np.float32(1 / n) for n in (2, 4, 8, 16))
_MINUS_ONE = np.float32(-1)


@njit(nogil=True, cache=True)
def reduce_planes(x: np.ndarray, out: np.ndarray) -> None:
    """Halve planes x, N H W, into out, N H/2 W/2."""
    count, height, width = x.shape
    row = np.empty(width + 4, np.float32)  # one row of the plane after the columns, with what reflection adds
    for n in range(count):
        for i in range(height // 2):
            above2, above = (x[n, 2 * i - 2], x[n, 2 * i - 1]) if i else (x[n, 2], x[n, 1])
            here, below = x[n, 2 * i], x[n, 2 * i + 1]
            below2 = x[n, 2 * i + 2] if 2 * i + 2 < height else x[n, height - 2]
            for j in range(width):
                c = here[j]
                near, far = above[j] + below[j], above2[j] + below2[j]
                row[j + 2] = c + (_QUARTER * (near - (c + c)) + _SIXTEENTH * (far - (c + c)))
            row[0], row[1] = row[4], row[3]
            row[width + 2], row[width + 3] = row[width], row[width - 1]
            to = out[n, i]
            for j in range(width // 2):
                c = row[2 * j + 2]
                near, far = row[2 * j + 1] + row[2 * j + 3], row[2 * j] + row[2 * j + 4]
                to[j] = c + (_QUARTER * (near - (c + c)) + _SIXTEENTH * (far - (c + c)))


@njit(nogil=True, cache=True)
def _expanded_rows(x: np.ndarray, wide: np.ndarray) -> None:
    """Double the rows of one plane x, H W, into wide, H+2 2W, with what reflection adds above and below."""
    height, width = x.shape
    last = width - 1
    for i in range(height):
        from_, to = x[i], wide[i + 1]
        c, r = from_[0], from_[1]
        to[0], to[1] = c + _EIGHTH * ((r + r) - (c + c)), _HALF * (c + r)
        for j in range(1, last):
            c, r = from_[j], from_[j + 1]
            to[2 * j] = c + _EIGHTH * ((from_[j - 1] + r) - (c + c))
            to[2 * j + 1] = _HALF * (c + r)
        c = from_[last]
        to[2 * last], to[2 * last + 1] = c + _EIGHTH * ((from_[last - 1] + c) - (c + c)), c
    wide[0] = wide[2]
    wide[height + 1] = wide[height]


@njit(nogil=True, cache=True)
def expand_planes(x: np.ndarray, onto: np.ndarray, sign: np.float32, out: np.ndarray) -> None:
    """out = onto + sign expand(x), sign 1 or -1: planes x N H W, the others N 2H 2W."""
    count, height, width = x.shape
    wide = np.empty((height + 2, 2 * width), np.float32)
    for n in range(count):
        _expanded_rows(x[n], wide)
        for i in range(height):
            above, here, below = wide[i], wide[i + 1], wide[i + 2]
            even, odd, even_out, odd_out = onto[n, 2 * i], onto[n, 2 * i + 1], out[n, 2 * i], out[n, 2 * i + 1]
            for j in range(2 * width):
                c = here[j]
                even_out[j] = even[j] + sign * (c + _EIGHTH * ((above[j] + below[j]) - (c + c)))
            for j in range(2 * width):
                odd_out[j] = odd[j] + sign * (_HALF * (here[j] + below[j]))


@njit(nogil=True, cache=True)
def split_planes(x: np.ndarray, coarse: np.ndarray, band: np.ndarray) -> None:
    """coarse = reduce(x), band = x - expand(coarse), plane by plane, so that one is read from memory once."""
    for n in range(len(x)):
        reduce_planes(x[n : n + 1], coarse[n : n + 1])
        expand_planes(coarse[n : n + 1], x[n : n + 1], _MINUS_ONE, band[n : n + 1])
