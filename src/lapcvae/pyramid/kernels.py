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
    even, odd = _halves(x.shape[2])
    for n in range(len(x)):
        _reduce(x[n], out[n], even, odd)


@njit(nogil=True, cache=True)
def _halves(width: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for a row's samples of even and of odd number, with what reflection adds."""
    return np.empty(width // 2 + 2, np.float32), np.empty(width // 2 + 1, np.float32)


@njit(nogil=True, cache=True)
def _reduce(x: np.ndarray, out: np.ndarray, even: np.ndarray, odd: np.ndarray) -> None:
    """Halve a plane x, H W, into out, H/2 W/2: columns first, the row that leaves by its even and odd samples."""
    height, half = len(x), x.shape[1] // 2
    for i in range(height // 2):
        above2, above = (x[2 * i - 2], x[2 * i - 1]) if i else (x[2], x[1])
        here, below = x[2 * i], x[2 * i + 1]
        below2 = x[2 * i + 2] if 2 * i + 2 < height else x[height - 2]
        for j in range(half):
            c = here[2 * j]
            near, far = above[2 * j] + below[2 * j], above2[2 * j] + below2[2 * j]
            even[j + 1] = c + (_QUARTER * (near - (c + c)) + _SIXTEENTH * (far - (c + c)))
            c = here[2 * j + 1]
            near, far = above[2 * j + 1] + below[2 * j + 1], above2[2 * j + 1] + below2[2 * j + 1]
            odd[j + 1] = c + (_QUARTER * (near - (c + c)) + _SIXTEENTH * (far - (c + c)))
        even[0], odd[0], even[half + 1] = even[2], odd[1], even[half]
        to = out[i]
        for j in range(half):
            c = even[j + 1]
            near, far = odd[j] + odd[j + 1], even[j] + even[j + 2]
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
    wide = np.empty((x.shape[1] + 2, 2 * x.shape[2]), np.float32)
    for n in range(len(x)):
        _expand(x[n], onto[n], sign, out[n], wide)


@njit(nogil=True, cache=True)
def _expand(x: np.ndarray, onto: np.ndarray, sign: np.float32, out: np.ndarray, wide: np.ndarray) -> None:
    """Of one plane, x H W, with room for its rows doubled, wide H+2 2W."""
    height, width = x.shape
    _expanded_rows(x, wide)
    for i in range(height):
        above, here, below = wide[i], wide[i + 1], wide[i + 2]
        even, odd, even_out, odd_out = onto[2 * i], onto[2 * i + 1], out[2 * i], out[2 * i + 1]
        for j in range(2 * width):
            c = here[j]
            even_out[j] = even[j] + sign * (c + _EIGHTH * ((above[j] + below[j]) - (c + c)))
        for j in range(2 * width):
            odd_out[j] = odd[j] + sign * (_HALF * (here[j] + below[j]))


@njit(nogil=True, cache=True)
def split_planes(x: np.ndarray, coarse: np.ndarray, band: np.ndarray) -> None:
    """coarse = reduce(x), band = x - expand(coarse), plane by plane, so that one is read from memory once.

    And read in one go, which is what processors read ahead in: halving goes through five rows at once. By loops, which
    Numba compiles to a faster copy than an assignment of slices.
    """
    height, width = x.shape[1:]
    even, odd = _halves(width)
    plane, wide = np.empty((height, width), np.float32), np.empty((height // 2 + 2, width), np.float32)
    for n in range(len(x)):
        for i in range(height):
            for j in range(width):
                plane[i, j] = x[n, i, j]
        _reduce(plane, coarse[n], even, odd)
        _expand(coarse[n], plane, _MINUS_ONE, band[n], wide)
