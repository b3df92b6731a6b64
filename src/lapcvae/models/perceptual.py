"""A distance of two images on a network's feature maps, the network named: `perceptual_mobilenetv2`.

As LPIPS (Zhang et al. 2018) without its learned weights: maps are brought to unit length a position, and squared
differences are summed over channels, averaged over positions and over maps. 0 for equal images, at most 4.
"""

from __future__ import annotations

from torch import Tensor

from lapcvae.models.mobilenet import NAME, MobileNetV2

METRIC = f"perceptual_{NAME}"


def perceptual_distance(network: MobileNetV2, x: Tensor, y: Tensor) -> Tensor:
    """Distance of each pair of images (B 3 S S on [0, 1]), B fp32; has a gradient to both."""
    distances = []
    for a, b in zip(network.maps(x), network.maps(y), strict=True):
        difference = _unit(a.float()) - _unit(b.float())
        distances.append(difference.square().sum(1).mean((1, 2)))
    return sum(distances[1:], distances[0]) / len(distances)


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()
