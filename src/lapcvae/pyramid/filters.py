"""The two operators of a pyramid, `reduce` (halve) and `expand` (double), as separable stencils.

Shapes: images are B C H W, floating point, H and W even for `reduce`. Both operators are linear and run in the
precision of their input, on its device; what they return is contiguous. No autocast touches them: they are sums of
slices, not convolutions. So no pixel depends on what else is in the batch, on any device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lapcvae.pyramid import compiled

PyramidKind = Literal["burt", "bilinear", "haar"]


def reduce(x: Tensor, kind: PyramidKind = "burt") -> Tensor:
    """Halve an image, B C H W -> B C H/2 W/2. Raises `ValueError` for odd or too small sides."""
    _check_even(x)
    if kind == "burt" and compiled.serves(x):
        return compiled.reduce(x)
    halve = _REDUCE[kind]
    return halve(halve(x, -2), -1).contiguous()  # rows first: they lie together, so half is gone when they do not


def expand(x: Tensor, kind: PyramidKind = "burt") -> Tensor:
    """Double an image, B C H W -> B C 2H 2W. Raises `ValueError` for sides under 2."""
    _check(x)
    if kind == "burt" and compiled.serves(x):
        return compiled.expand(x)
    double = _EXPAND[kind]
    return double(double(x, -1), -2).contiguous()


def split(x: Tensor, kind: PyramidKind = "burt") -> tuple[Tensor, Tensor]:
    """`reduce` of an image and the `band` that it lacks. Raises `ValueError` as `reduce` does."""
    _check_even(x)
    if kind == "burt" and compiled.serves(x):
        return compiled.split(x)
    coarse = reduce(x, kind)
    return coarse, band(x, coarse, kind)


def band(fine: Tensor, coarse: Tensor, kind: PyramidKind = "burt") -> Tensor:
    """fine - expand(coarse), B C 2H 2W. Raises `ValueError` for sides of `coarse` under 2."""
    _check(coarse)
    if kind == "burt" and compiled.serves(fine, coarse):
        return compiled.band(fine, coarse)
    return fine - expand(coarse, kind)


def rebuild(band: Tensor, coarse: Tensor, kind: PyramidKind = "burt") -> Tensor:
    """band + expand(coarse), B C 2H 2W: undoes `band`. Raises `ValueError` for sides of `coarse` under 2."""
    _check(coarse)
    if kind == "burt" and compiled.serves(band, coarse):
        return compiled.rebuild(band, coarse)
    return band + expand(coarse, kind)


def _check_even(x: Tensor) -> None:
    _, _, height, width = x.shape
    if height % 2 or width % 2 or min(height, width) < 4:
        raise ValueError(f"cannot halve {height} x {width}: sides must be even and at least 4")


def _check(x: Tensor) -> None:
    if min(x.shape[-2:]) < 2:
        raise ValueError(f"cannot double {x.shape[-2]} x {x.shape[-1]}: sides must be at least 2")


def _burt_reduce(x: Tensor, axis: int) -> Tensor:
    # Burt and Adelson (1983): [1 4 6 4 1]/16 centred on the even samples, reflect padding without the edge. Written as
    # the centre and what its neighbours differ from it, y = c + (l + r - 2 c)/4 + (ll + rr - 2 c)/16: a constant image
    # is kept exactly, and as factors are powers of two, fused and separate multiply-adds give the same bits.
    n = x.shape[axis]
    p = torch.cat([x.narrow(axis, 2, 1), x.narrow(axis, 1, 1), x, x.narrow(axis, n - 2, 1)], axis)
    ll, l, c, r, rr = (_every_second(p, start, n // 2, axis) for start in range(5))  # noqa: E741
    twice = c + c
    return c + (0.25 * ((l + r) - twice) + 0.0625 * ((ll + rr) - twice))


def _burt_expand(x: Tensor, axis: int) -> Tensor:
    # Zero insertion, then the same kernel with gain 2. Odd outputs are (x_j + x_{j+1})/2, even ones [1 6 1]/8 around
    # x_j, written as above. Reflecting the zero-inserted signal means: x_{-1} = x_1, and x_n = x_{n-1}.
    n = x.shape[axis]
    l = torch.cat([x.narrow(axis, 1, 1), x.narrow(axis, 0, n - 1)], axis)  # noqa: E741
    r = torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], axis)
    return _interleave(x + 0.125 * ((l + r) - (x + x)), 0.5 * (x + r), axis)


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
