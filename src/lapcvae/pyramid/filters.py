"""The two operators of a pyramid, `reduce` (halve) and `expand` (double), as separable stencils.

Shapes: images are B C H W, floating point, H and W even for `reduce`. Both operators are linear and run in the
precision of their input, on its device; what they return is contiguous. No autocast touches them: they are means of
slices, not convolutions. So no pixel depends on what else is in the batch, on any device.
"""

from __future__ import annotations

import sys
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
    return halve(halve(x.contiguous(), -2), -1)  # rows first: they lie together, so half is gone when they do not


def expand(x: Tensor, kind: PyramidKind = "burt") -> Tensor:
    """Double an image, B C H W -> B C 2H 2W. Raises `ValueError` for sides under 2."""
    if min(x.shape[-2:]) < 2:
        raise ValueError(f"cannot double {x.shape[-2]} x {x.shape[-1]}: sides must be at least 2")
    double = _EXPAND[kind]
    return double(double(x.contiguous(), -1), -2)


def _burt_reduce(x: Tensor, axis: int) -> Tensor:
    # Burt and Adelson (1983): [1 4 6 4 1]/16 centred on the even samples, reflect padding without the edge.
    # In two steps over the even and odd samples, as in lifting: q_j = (4 o_j + e_j + e_{j+1})/6, then
    # y_j = (4 e_j + 6 q_{j-1} + 6 q_j)/16. Reflection means e_n = e_{n-1} and q_{-1} = q_0. Each line is one pass over
    # memory, which is all that this costs, and a mean of two, which keeps a constant image exactly.
    even, odd = _deinterleave(x, axis)
    q = _pull(odd.lerp(even, 1 / 5), even, 1 / 6, axis, 1)
    return _pull(even.lerp(q, 3 / 5), q, 3 / 8, axis, -1)


def _burt_expand(x: Tensor, axis: int) -> Tensor:
    # Zero insertion, then the same kernel with gain 2. Odd outputs see o_j = (x_j + x_{j+1})/2, even ones
    # [1 6 1]/8, which is (2 x_j + o_{j-1} + o_j)/4. Reflecting the zero-inserted signal means: o_{-1} = o_0 on the
    # left, repeat the edge on the right.
    if axis == -1 or x.requires_grad or torch.compiler.is_compiling():
        odd = _pull(x.clone(), x, 1 / 2, axis, 1)
        return _interleave(_pull(x.lerp(odd, 1 / 3), odd, 1 / 4, axis, -1), odd, axis)
    # Rows are written where they belong, so that none is moved again; autograd and the compiler take no `out`.
    out = x.new_empty((*x.shape[:-1], 2, x.shape[-1]))
    even, odd = out.unbind(-2)
    _pull(odd.copy_(x), x, 1 / 2, axis, 1)
    _pull(torch.lerp(x, odd, 1 / 3, out=even), odd, 1 / 4, axis, -1)
    return out.flatten(-3, -2)


def _pull(x: Tensor, towards: Tensor, weight: float, axis: int, step: int) -> Tensor:
    """Move each x_j towards `towards`_{j + step}, step 1 or -1, by `weight`, in place; the edge towards its own."""
    n = x.shape[axis]
    edge, x_from, from_ = (n - 1, 0, 1) if step == 1 else (0, 1, 0)
    whole_batch = axis == -1 and x.is_contiguous() and towards.is_contiguous()
    if whole_batch and not (x.requires_grad or torch.compiler.is_compiling()):
        # As one long row, three times as fast as row by row; what met the next row's pixel is put right.
        right = x[..., edge].lerp(towards[..., edge], weight)
        whole, other = x.view(-1), towards.view(-1)
        count = len(whole) - 1
        whole.narrow(0, x_from, count).lerp_(other.narrow(0, from_, count), weight)
        x[..., edge] = right
        return x
    x.narrow(axis, x_from, n - 1).lerp_(towards.narrow(axis, from_, n - 1), weight)
    x.narrow(axis, edge, 1).lerp_(towards.narrow(axis, edge, 1), weight)
    return x


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


def _deinterleave(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    n = x.shape[axis] // 2
    if axis == -1 and x.dtype == torch.float32 and not x.requires_grad and x.is_contiguous():
        # Neighbours read as one integer: moves the same bits as the slices, four times as fast, without a gradient.
        pairs = x.view(torch.int64)
        even, odd = (pairs, pairs >> 32) if sys.byteorder == "little" else (pairs >> 32, pairs)
        return even.to(torch.int32).view(torch.float32), odd.to(torch.int32).view(torch.float32)
    return _every_second(x, 0, n, axis), _every_second(x, 1, n, axis)


def _interleave(even: Tensor, odd: Tensor, axis: int) -> Tensor:
    if axis == -1 and even.dtype in (torch.float32, torch.float64) and not torch.compiler.is_compiling():
        # Complex numbers lie in memory as just that, and are written five times as fast as a stack (compiled, not).
        return torch.view_as_real(torch.complex(even, odd)).flatten(-2)
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
