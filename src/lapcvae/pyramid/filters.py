"""The two operators of a pyramid, `reduce` (halve) and `expand` (double), as separable stencils.

Shapes: images are B C H W, floating point, H and W even for `reduce`. Both operators are linear and run in the
precision of their input, on its device. No autocast touches them: they are sums of slices, not convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

PyramidKind = Literal["burt", "bilinear", "haar"]


def reduce(x: Tensor, kind: PyramidKind = "burt") -> Tensor:
    """Halve an image, B C H W -> B C H/2 W/2. Raises `ValueError` for odd or too small sides."""
    _, _, height, width = x.shape
    if height % 2 or width % 2 or min(height, width) < 4:
        raise ValueError(f"cannot halve {height} x {width}: sides must be even and at least 4")
    halve = _REDUCE[kind]
    return halve(halve(x, -1), -2)


def expand(x: Tensor, kind: PyramidKind = "burt") -> Tensor:
    """Double an image, B C H W -> B C 2H 2W. Raises `ValueError` for sides under 2."""
    if min(x.shape[-2:]) < 2:
        raise ValueError(f"cannot double {x.shape[-2]} x {x.shape[-1]}: sides must be at least 2")
    double = _EXPAND[kind]
    return double(double(x, -1), -2)


def _burt_reduce(x: Tensor, axis: int) -> Tensor:
    # Burt and Adelson (1983): [1 4 6 4 1]/16 centred on the even samples, reflect padding without the edge.
    n = x.shape[axis]
    left = x.narrow(axis, 1, 2).flip(axis)
    right = x.narrow(axis, n - 2, 1)
    p = torch.cat([left, x, right], axis)
    a, b, c, d, e = (_every_second(p, start, n // 2, axis) for start in range(5))
    return (a + e + 4 * (b + d) + 6 * c) / 16


def _burt_expand(x: Tensor, axis: int) -> Tensor:
    # Zero insertion, then the same kernel with gain 2. Even outputs see [1 6 1]/8, odd ones [1 1]/2. Reflecting the
    # zero-inserted signal means: reflect without the edge on the left, repeat the edge on the right.
    n = x.shape[axis]
    p = torch.cat([x.narrow(axis, 1, 1), x, x.narrow(axis, n - 1, 1)], axis)
    before, here, after = (p.narrow(axis, start, n) for start in range(3))
    return _interleave((before + 6 * here + after) / 8, (here + after) / 2, axis)


def _bilinear_reduce(x: Tensor, axis: int) -> Tensor:
    # Triangle filter of twice the support, centred between two samples: [1 3 3 1]/8, edges repeated.
    n = x.shape[axis]
    p = torch.cat([x.narrow(axis, 0, 1), x, x.narrow(axis, n - 1, 1)], axis)
    a, b, c, d = (_every_second(p, start, n // 2, axis) for start in range(4))
    return (a + d + 3 * (b + c)) / 8


def _bilinear_expand(x: Tensor, axis: int) -> Tensor:
    n = x.shape[axis]
    p = torch.cat([x.narrow(axis, 0, 1), x, x.narrow(axis, n - 1, 1)], axis)
    before, here, after = (p.narrow(axis, start, n) for start in range(3))
    return _interleave((before + 3 * here) / 4, (3 * here + after) / 4, axis)


def _haar_reduce(x: Tensor, axis: int) -> Tensor:
    # The mean of two neighbours: Haar's lowpass, scaled so that an image stays on [0, 1] (see pyramid/haar.py).
    n = x.shape[axis] // 2
    return (_every_second(x, 0, n, axis) + _every_second(x, 1, n, axis)) / 2


def _haar_expand(x: Tensor, axis: int) -> Tensor:
    return x.repeat_interleave(2, axis)


def _every_second(p: Tensor, start: int, count: int, axis: int) -> Tensor:
    index = [slice(None)] * p.ndim
    index[axis] = slice(start, start + 2 * count - 1, 2)
    return p[tuple(index)]


def _interleave(even: Tensor, odd: Tensor, axis: int) -> Tensor:
    axis = axis % even.ndim
    return torch.stack([even, odd], axis + 1).flatten(axis, axis + 1)


_REDUCE: dict[str, Callable[[Tensor, int], Tensor]] = {
    "burt": _burt_reduce,
    "bilinear": _bilinear_reduce,
    "haar": _haar_reduce,
}
_EXPAND: dict[str, Callable[[Tensor, int], Tensor]] = {
    "burt": _burt_expand,
    "bilinear": _bilinear_expand,
    "haar": _haar_expand,
}
