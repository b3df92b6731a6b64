"""A gated PixelCNN over the coarsest image: p(x_K | mu_K), a pixel after another, over a channel's 256 values.

Gated convolutions in a vertical and a horizontal stack, without blind spot (van den Oord et al. 2016); the density of a
value is a mixture of logistics discretised to the 256 values, green depending on red and blue on both (Salimans et al.
2017). The picture mu_K, a function of z_K, is seen by every layer. Masks are shifts: a stack sees what came before.

Shapes: images and mu_K B 3 S S on [0, 1]; the mixture's parameters B 10M S S; noise B S S M+3, uniform on (0, 1).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYERS, MIXTURES = 5, 5
# Narrowest logistic, log scale on [-1, 1]: well under the distance of two values, 2/255.
_LOWEST = -7.0


class _Gated(nn.Module):
    """One layer of both stacks. The first sees only what is strictly before a pixel, the others the pixel's features,
    which know no more than that."""

    def __init__(self, channels: int, width: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.vertical = nn.Conv2d(channels, 2 * width, (2, 3))
        self.horizontal = nn.Conv2d(channels, 2 * width, (1, 2))
        self.down = nn.Conv2d(2 * width, 2 * width, 1)
        self.seen = nn.Conv2d(width, 4 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, v: Tensor, h: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = v.shape[-2:]
        shift = 2 if self.first else 1
        above = self.vertical(F.pad(v, (1, 1, shift, 0)))[..., :rows, :]
        left = self.horizontal(F.pad(h, (shift, 0)))[..., :columns]
        for_v, for_h = self.seen(seen).chunk(2, 1)
        out = self.out(_gate(left + self.down(above) + for_h))
        return _gate(above + for_v), out if self.first else h + out


class PixelCNN(nn.Module):
    """p(x | mu), see above."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # A channel of ones tells the border, where padding has zeros, from mid-grey.
        self.layers = nn.ModuleList([_Gated(4 if i == 0 else width, width, i == 0) for i in range(LAYERS)])
        self.read = nn.Sequential(nn.Conv2d(3, width, 5, padding=2), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.out = nn.Conv2d(width, 10 * MIXTURES, 1)
        nn.init.zeros_(self.out.weight)

    def nll(self, x: Tensor, mean: Tensor) -> Tensor:
        """-log p of each image's values, B nats; x is rounded to the 256 values first."""
        values = (x.float() * 255).round().clamp(0, 255)
        pixels = values / 127.5 - 1
        logits, centres, log_scales = _mixture(self._mixture_at(pixels, self.read(mean * 2 - 1)), pixels)
        inverse = (-log_scales).exp()
        distance = pixels.unsqueeze(1) - centres
        upper, lower = (distance + 1 / 255) * inverse, (distance - 1 / 255) * inverse
        inside = (torch.sigmoid(upper) - torch.sigmoid(lower)).clamp_min(1e-12).log()
        value = values.unsqueeze(1)
        # All that lies beyond the ends is counted to 0 and to 255.
        log_mass = torch.where(value == 0, F.logsigmoid(upper), torch.where(value == 255, F.logsigmoid(-lower), inside))
        return -torch.logsumexp(log_mass.sum(2) + logits.log_softmax(1), 1).sum((1, 2))

    @torch.no_grad()
    def sample(self, mean: Tensor, noise: Tensor) -> Tensor:
        """Images drawn pixel by pixel from `noise`, with values that are multiples of 1/255."""
        pixels = torch.zeros_like(mean)
        seen = self.read(mean * 2 - 1)
        noise = noise.clamp(1e-6, 1 - 1e-6)
        for i in range(mean.shape[-2]):
            for j in range(mean.shape[-1]):
                # Rows below are not looked at, and need not be computed.
                rows = self._mixture_at(pixels[..., : i + 1, :], seen[..., : i + 1, :])[..., i : i + 1, j : j + 1]
                picked = rows[:, :MIXTURES, 0, 0] - (-noise[:, i, j, :MIXTURES].log()).log()  # Gumbel
                which = picked.argmax(1)
                for channel in range(3):
                    _, centres, log_scales = _mixture(rows, pixels[..., i : i + 1, j : j + 1])
                    at = which.view(-1, 1, 1, 1, 1).expand(-1, 1, *centres.shape[2:])
                    centre = centres.gather(1, at)[:, 0, channel, 0, 0]
                    scale = log_scales.gather(1, at)[:, 0, channel, 0, 0].exp()
                    drawn = centre + scale * torch.logit(noise[:, i, j, MIXTURES + channel])
                    value = ((drawn.clamp(-1, 1) + 1) * 127.5).round()
                    pixels[:, channel, i, j] = value / 127.5 - 1
        return (pixels + 1) / 2

    def _mixture_at(self, pixels: Tensor, seen: Tensor) -> Tensor:
        v = h = torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1)
        for layer in self.layers:
            v, h = layer(v, h, seen)
        return self.out(F.silu(h)).float()


def _mixture(parameters: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(logits B M S S, centres and log scales B M 3 S S); centres given the pixel's own red and green."""
    logits = parameters[:, :MIXTURES]
    means, log_scales, mixing = parameters[:, MIXTURES:].unflatten(1, (MIXTURES, 9)).chunk(3, 2)
    to_green, to_blue, green_to_blue = torch.tanh(mixing).unbind(2)
    red, green = pixels[:, None, 0], pixels[:, None, 1]
    centres = torch.stack(
        [means[:, :, 0], means[:, :, 1] + to_green * red, means[:, :, 2] + to_blue * red + green_to_blue * green], 2
    )
    # Starts as wide as a photograph's values are.
    return logits, centres, (log_scales + math.log(0.3)).clamp_min(_LOWEST)


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)
