"""One level of the pyramid: a conditional VAE (DESIGN section 2).

    encoder  q_k(z_k | target, expand(coarser))     decoder  p_k(target | z_k, expand(x~_{k+1})) = N(mu_k, sigma_k)
    prior    p(z_k | level k+1) = N(R_k(.), S_k(.)), at the coarsest level N(0, I)

Shapes: B 3 S S images on the [0, 1] scale (bands around 0); latents B D (vector) or B C g g (spatial).
A plain VAE is the same object at level 1 of a pyramid of one level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapcvae.models.blocks import (
    PlainRenderer,
    PlainTrunk,
    ResidualRenderer,
    ResidualTrunk,
    concatenate,
    patch_of,
    reachable_grid,
)
from lapcvae.models.gaussian import DiagonalGaussian
from lapcvae.models.pixelcnn import PixelCNN
from lapcvae.models.prior import LatentFeatures
from lapcvae.models.published import GRID, PublishedRenderer, PublishedTrunk
from lapcvae.models.settings import ModelSettings
from lapcvae.pyramid import haar
from lapcvae.pyramid.filters import PyramidKind, expand

# Side of the feature map that a vector latent is read from and written to.
VECTOR_GRID = 4
# A fitted draw keeps a matrix of latents by latents: 64 MB at most.
MOST_FITTED = 4096


@dataclass(frozen=True)
class LevelScale:
    """Fixed numbers a level normalises with, on the [0, 1] scale: from the pyramid's statistics.

    `target_mean` (per channel) and `target_std` of what the level models; `image_mean`, `image_std` of its condition;
    `coarse_std`: target_std of level k+1, the scale of mu_{k+1} (1 where there is no coarser level). `gain`: what the
    level's numbers are multiplied by where the likelihood counts them (haar only).
    """

    target_mean: tuple[float, float, float]
    target_std: float
    image_mean: tuple[float, float, float]
    image_std: float
    coarse_mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    coarse_std: float = 1.0
    gain: float = 1.0


@dataclass(frozen=True)
class Coarser:
    """What level k sees of level k+1.

    image: x~_{k+1}, B 3 S/2 S/2. mean: mu_{k+1}, same shape. log_sigma: log sigma_{k+1}, a number, or a 0-d fp64 tensor
    where the number is on the device and nothing is to wait for it. z: z_{k+1}, and z_log_std: the log std of its
    posterior, where z is that posterior's mean and not a sample; both only where the prior network reads them.
    """

    image: Tensor
    mean: Tensor
    log_sigma: float | Tensor
    z: Tensor | None = None
    z_log_std: Tensor | None = None


class LevelCVAE(nn.Module):
    """Encoder, decoder and prior network of one level."""

    target_mean: Tensor
    image_mean: Tensor
    coarse_mean: Tensor

    coarse_log_std: Tensor
    drawn_mean: Tensor
    drawn_root: Tensor

    def __init__(
        self,
        settings: ModelSettings,
        side: int,
        coarsest: bool,
        scale: LevelScale,
        kind: PyramidKind = "burt",
        coarser_latents: tuple[int, ...] = (),
    ) -> None:
        """coarser_latents: shape of z_{k+1}; only priors that read it need it. Raises `ValueError`."""
        super().__init__()
        self.settings, self.side, self.coarsest, self.scale, self.kind = settings, side, coarsest, scale, kind
        # Open, a Haar band has its three directions a block and no other: decoder and likelihood keep to them.
        self.in_details = kind == "haar" and settings.loop == "open" and not coarsest
        for name in ("target_mean", "image_mean", "coarse_mean"):
            self.register_buffer(name, torch.tensor(getattr(scale, name)).view(1, 3, 1, 1), persistent=False)
        s = settings
        spatial = s.latent == "spatial"
        grid = _grid(s, side, min(s.latent_grid, side // 2) if spatial else VECTOR_GRID)
        self.latent_shape = (s.latent_size, grid, grid) if spatial else (s.latent_size,)
        channels = 3 if coarsest else 6

        self.encoder = _trunk(s, channels, side, grid)
        seen = 1 if s.network == "published" else grid
        self.to_posterior = _to_latent(spatial, self.encoder.out_channels, seen, s.latent_size)
        features = {"residual": s.width, "published": 256}.get(s.network, self.encoder.out_channels)
        self.from_latent = _from_latent(spatial, s.latent_size, features, grid)
        self.renderer: nn.Module
        if s.network == "residual":
            self.renderer = ResidualRenderer(side, grid, s.width, s.blocks, not coarsest)
        elif s.network == "published":
            if not coarsest:
                raise ValueError("`network: published` is a plain VAE of whole images: for `baselines` only")
            self.renderer = PublishedRenderer(side)
        else:
            self.renderer = PlainRenderer(side, grid, features, s.width, not coarsest)
        self._add_prior("standard" if coarsest else s.prior, grid, coarser_latents)
        if s.draw == "fitted":
            size = math.prod(self.latent_shape)
            if size > MOST_FITTED:
                raise ValueError(f"`draw: fitted` is for up to {MOST_FITTED} latents, not {size}; set `draw: prior`")
            self.register_buffer("drawn_mean", torch.zeros(size))
            self.register_buffer("drawn_root", torch.eye(size))
        start = math.log(s.sigma_255 / 255) if s.sigma == "fixed" else math.log(0.5 * scale.target_std)
        self.log_sigma = nn.Parameter(torch.tensor(start))
        # Not a parameter where sigma is the optimum of each batch; set from the training split at the end.
        self.log_sigma.requires_grad_(s.sigma == "learned")
        if s.likelihood == "pixelcnn" and not coarsest:
            raise ValueError("`likelihood: pixelcnn` is for the coarsest level: finer ones have too many pixels")
        self.pixels = PixelCNN(s.width) if s.likelihood == "pixelcnn" else None

    def _add_prior(self, prior: str, grid: int, coarser_latents: tuple[int, ...]) -> None:
        """M_k, small on purpose: it only has to carry coarse structure over."""
        s, side = self.settings, self.side
        spatial = s.latent == "spatial"
        self.prior_trunk: nn.Module | None = None
        self.prior_latent: LatentFeatures | None = None
        if prior in ("latent", "ancestral") and not coarser_latents:
            raise ValueError(f"`prior: {prior}` needs to know the latents of the coarser level")
        if prior == "decoder_stats":
            grid = _grid(s, side // 2, min(grid, side // 4))
            trunk = _trunk(s, 4, side // 2, grid)
            self.prior_trunk, features = trunk, trunk.out_channels
        elif prior == "ancestral":
            trunk = _trunk(s, 3, side, grid)
            self.prior_trunk, features = trunk, trunk.out_channels
            self.prior_latent = LatentFeatures(coarser_latents, 1, features, grid)
        elif prior == "latent":
            features = s.width
            self.prior_latent = LatentFeatures(coarser_latents, 2, features, grid)
            # Stands in for a posterior's log std where z_{k+1} is a draw: its mean over the training split.
            self.register_buffer("coarse_log_std", torch.zeros(coarser_latents))
        else:
            return
        self.to_prior = _to_latent(spatial, features, grid, s.latent_size)

    def encode(self, target: Tensor, condition: Tensor | None, prior: DiagonalGaussian) -> DiagonalGaussian:
        """q_k: the posterior of target (B 3 S S) given the expanded coarser image (same shape; None at level K)."""
        x = (target - self.target_mean) / self.scale.target_std
        if condition is not None:
            x = concatenate(x, self._normalised(condition))
        out = DiagonalGaussian.from_network(self.to_posterior(self.encoder(x)))
        return out.relative_to(prior) if self.settings.residual_posterior else out

    def prior(self, coarser: Coarser | None, batch: int) -> DiagonalGaussian:
        """p(z_k | level k+1) for `batch` images; N(0, I) at the coarsest level or where `prior` is `standard`."""
        if coarser is None or (self.prior_trunk is None and self.prior_latent is None):
            device = self.target_mean.device
            return DiagonalGaussian.standard(torch.zeros(batch, *self.latent_shape, device=device))
        out = self.to_prior(self._prior_features(coarser))
        if self.settings.latent == "spatial" and out.shape[-1] != self.latent_shape[-1]:
            out = F.interpolate(out.float(), size=self.latent_shape[-2:], mode="nearest")
        return DiagonalGaussian.from_network(out)

    def draw(self, prior: DiagonalGaussian, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """z_k of new faces for standard normal `noise`, both in the latents' shape; see `draw` in settings."""
        if self.settings.draw == "fitted":
            spread = noise.flatten(1) @ self.drawn_root.T
            return prior.at((self.drawn_mean + temperature * spread).view_as(noise))
        return prior.at(noise, temperature)

    def set_draws(self, mean: Tensor, root: Tensor) -> None:
        """What `draw: fitted` draws, in the prior's units: mean, D, and a root of the covariance, D x D."""
        self.drawn_mean.copy_(mean)
        self.drawn_root.copy_(root)

    def _prior_features(self, coarser: Coarser) -> Tensor:
        if self.prior_latent is None:
            assert self.prior_trunk is not None
            mean = (coarser.mean - self.coarse_mean) / self.scale.coarse_std
            spread, plane = coarser.log_sigma - math.log(self.scale.coarse_std), mean[:, :1]
            same = spread.to(mean).expand_as(plane) if isinstance(spread, Tensor) else torch.full_like(plane, spread)
            return self.prior_trunk(torch.cat([mean, same], 1))
        assert coarser.z is not None
        if self.prior_trunk is not None:
            seen = self._normalised(expand(coarser.image, self.kind))
            return self.prior_trunk(seen) + self.prior_latent(coarser.z)
        log_std = self.coarse_log_std.expand_as(coarser.z) if coarser.z_log_std is None else coarser.z_log_std
        return self.prior_latent(torch.cat([coarser.z, log_std], 1))

    def decode(self, z: Tensor, condition: Tensor | None) -> Tensor:
        """mu_k, B 3 S S fp32, from z_k and the expanded rebuilt coarser image (None at level K)."""
        seen = None if condition is None else self._normalised(condition)
        out = self.renderer(self.from_latent(z), seen)
        mean = out.float() * self.scale.target_std + self.target_mean
        return haar.without_means(mean) if self.in_details else mean

    def error(self, target: Tensor, mean: Tensor) -> Tensor:
        """target - mean in the coordinates that the likelihood counts: the pixels, or Haar's detail coordinates."""
        error = target - mean
        return haar.details(error) if self.in_details else error

    def _normalised(self, image: Tensor) -> Tensor:
        return (image - self.image_mean) / self.scale.image_std


def _grid(s: ModelSettings, side: int, largest: int) -> int:
    """Side of the feature map that latents stand on: at most `largest`, where halving leads there."""
    if s.network == "published":
        return GRID
    return reachable_grid(side // patch_of(side) if s.network == "residual" else side, largest)


def _trunk(s: ModelSettings, channels: int, side: int, grid: int) -> PlainTrunk | ResidualTrunk | PublishedTrunk:
    if s.network == "published":
        return PublishedTrunk(side)
    if s.network == "residual":
        return ResidualTrunk(channels, side, grid, s.width, s.blocks)
    return PlainTrunk(channels, side, grid, s.width)


def _to_latent(spatial: bool, features: int, grid: int, size: int) -> nn.Module:
    last: nn.Conv2d | nn.Linear
    last = nn.Conv2d(features, 2 * size, 3, padding=1) if spatial else nn.Linear(features * grid**2, 2 * size)
    # Start near N(0, I): early KL is then small and the decoder learns first.
    nn.init.normal_(last.weight, std=0.01)
    torch.nn.init.constant_(last.get_parameter("bias"), 0)
    return last if spatial else nn.Sequential(nn.Flatten(), last)


def _from_latent(spatial: bool, size: int, features: int, grid: int) -> nn.Module:
    if spatial:
        return nn.Conv2d(size, features, 3, padding=1)
    return nn.Sequential(nn.Linear(size, features * grid**2), nn.Unflatten(1, (features, grid, grid)))
