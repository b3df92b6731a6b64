"""The image-space evidence bound of the composed model, in bits per dimension.

The cascade is a hierarchical VAE with decoder mean x~_1, so
    log p(x) >= E_q log p(x | x~_1) - sum_k KL(q_k || p_k),
where p(x | x~_1) is a Gaussian of one calibrated s, discretised to the 256 values a pixel can have: the mass of
[v - 1/2, v + 1/2], with everything beyond the ends counted to 0 and 255.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SMALLEST = 1e-12


def calibrated_sigma(squared_error_255: float) -> float:
    """s on the 0-255 scale that maximises the Gaussian likelihood of this mean squared error."""
    return math.sqrt(max(squared_error_255, _SMALLEST))


def discretised_nll(x: Tensor, rebuilt: Tensor, sigma_255: float) -> Tensor:
    """-log p(x | rebuilt) of each image in nats, B float64; x holds multiples of 1/255, both B 3 S S on [0, 1]."""
    value = (x.double() * 255).round()
    centre = rebuilt.double() * 255
    upper = torch.special.ndtr((value + 0.5 - centre) / sigma_255)
    lower = torch.special.ndtr((value - 0.5 - centre) / sigma_255)
    # Far above its mean a value's mass is a difference of numbers near 1: take both from the other tail there.
    upper_tail = torch.special.ndtr((centre - value - 0.5) / sigma_255)
    lower_tail = torch.special.ndtr((centre - value + 0.5) / sigma_255)
    mass = torch.where(value > centre, lower_tail - upper_tail, upper - lower)
    mass = torch.where(value <= 0, upper, mass)
    mass = torch.where(value >= 255, lower_tail, mass)
    return -mass.clamp_min(1e-300).log().sum((1, 2, 3))


def bits_per_dim(nll_nats: Tensor, rate_nats: Tensor, dimensions: int) -> Tensor:
    """The negative bound of each image in bits a dimension: (distortion + rate) / (dimensions ln 2)."""
    return (nll_nats + rate_nats) / (dimensions * math.log(2))
