"""Two images become one without a seam: band by band, each band feathered as wide as its own pixels are.

Burt and Adelson, "A Multiresolution Spline with Application to Image Mosaics", ACM Transactions on Graphics, 1983: with
h^a_k, h^b_k the Laplacian bands of both and m_k the Gaussian pyramid of the mask,
    h_k = m_k h^a_k + (1 - m_k) h^b_k,     blended = collapse(h_1 ... h_K)
"""

from __future__ import annotations

import torch
from torch import Tensor

from lapcvae.pyramid.laplacian import build, collapse, gaussian_pyramid

# The coarsest band that is blended by itself; what is below it changes over a sixth of the face or more.
COARSEST_PX = 16


def blend(inside: Tensor, outside: Tensor, mask: Tensor) -> Tensor:
    """`inside` where the mask is 1, `outside` where it is 0, feathered between; B 3 S S, mask B 1 S S or 1 1 S S.

    The bands are always Burt and Adelson's, whatever pyramid a model has. A mask of ones gives `inside`, of zeros
    `outside`, to float rounding.
    """
    depth = _depth(inside.shape[-1])
    shares = gaussian_pyramid(mask.float(), depth)
    bands = zip(build(inside, depth), build(outside, depth), shares, strict=True)
    return collapse([m * a + (1 - m) * b for a, b, m in bands])


def changed(painted: Tensor, before: Tensor, side: int, threshold: float = 4 / 255) -> Tensor:
    """A mask of what was painted: 1 1 side side, 1 where a picture (1 3 s s) differs from what it was made from.

    threshold: of any channel on [0, 1]. It is grown by a pixel of the painted level, so that what is seen through
    the feather is painted too.
    """
    mask = ((painted - before).abs().amax(1, keepdim=True) > threshold).float()
    mask = torch.nn.functional.max_pool2d(mask, 3, stride=1, padding=1)
    return torch.nn.functional.interpolate(mask, size=(side, side), mode="nearest-exact")


def _depth(side: int) -> int:
    depth = 1
    while side % 2 == 0 and side // 2 >= COARSEST_PX:
        side //= 2
        depth += 1
    return depth
