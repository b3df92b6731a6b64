"""The composed model: levels run from coarse to fine, each conditioned on what the coarser ones rebuilt.

    x~_K = mu_K;   x~_k = expand(x~_{k+1}) + mu_k

Shapes: images B 3 S S on the [0, 1] scale; lists of levels hold level 1 first, as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lapcvae.models.gaussian import DiagonalGaussian, kl_divergence
from lapcvae.models.level import Coarser, LevelCVAE
from lapcvae.models.noise import Noise
from lapcvae.pyramid.filters import PyramidKind, expand, reduce
from lapcvae.pyramid.laplacian import gaussian_pyramid


@dataclass(frozen=True)
class LevelPass:
    """One level run on a batch.

    target, mean: what was modelled and mu_k (B 3 S S). condition: expand(x~_{k+1}), or None at level K.
    rebuilt: x~_k. posterior, prior: of z_k.
    """

    target: Tensor
    mean: Tensor
    condition: Tensor | None
    rebuilt: Tensor
    posterior: DiagonalGaussian
    prior: DiagonalGaussian

    def kl(self) -> Tensor:
        """KL(q_k || p_k) of each latent in nats, B by the latents' shape."""
        return kl_divergence(self.posterior, self.prior)


def run_level(
    level: LevelCVAE,
    x: Tensor,
    coarser: Coarser | None,
    kind: PyramidKind,
    generator: Noise | None,
) -> LevelPass:
    """Encode and decode x_k (B 3 S S) given level k+1; z_k is the posterior mean where `generator` is None."""
    prior = level.prior(coarser, len(x))
    if coarser is None:
        target, seen, condition = x, None, None
    else:
        condition = expand(coarser.image, kind)
        # The open loop encodes the true Laplacian band, as in the paper; the closed loop what is left to repair.
        seen = condition if level.settings.loop == "closed" else expand(reduce(x, kind), kind)
        target = x - seen
    posterior = level.encode(target, seen, prior)
    z = posterior.mean if generator is None else posterior.sample(generator)
    mean = level.decode(z, condition)
    rebuilt = mean if condition is None else condition + mean
    return LevelPass(target, mean, condition, rebuilt, posterior, prior)


class Cascade(nn.Module):
    """Levels 1 (finest) to K (coarsest) and the filters between them. One level is a plain VAE."""

    def __init__(self, levels: list[LevelCVAE], kind: PyramidKind = "burt") -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.kind: PyramidKind = kind

    def level(self, k: int) -> LevelCVAE:
        """Level k, counted from 1, the finest."""
        found = self.levels[k - 1]
        assert isinstance(found, LevelCVAE)
        return found

    @property
    def depth(self) -> int:
        """K, the number of levels."""
        return len(self.levels)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, generator: torch.Generator | None = None) -> list[LevelPass]:
        """Passes of levels 1 ... K on images x; latents at the posterior mean, or sampled where a generator is given.

        When sampling, every level is conditioned on what the coarser samples rebuilt, so the KL terms and the last
        error together are one draw of the hierarchical bound.
        """
        pyramid = gaussian_pyramid(x, self.depth, self.kind)
        passes: list[LevelPass] = []
        coarser: Coarser | None = None
        for k in range(self.depth, 0, -1):
            done = run_level(self.level(k), pyramid[k - 1], coarser, self.kind, generator)
            passes.insert(0, done)
            coarser = Coarser(done.rebuilt, done.mean, float(self.level(k).log_sigma))
        return passes

    @torch.no_grad()
    def sample(
        self, count: int, generator: torch.Generator, temperature: float = 1.0, finer_temperature: float | None = None
    ) -> list[Tensor]:
        """[x~_1 ... x~_K] of `count` faces drawn from the prior, decoder means all the way.

        temperature scales the prior's standard deviation, at the levels below K by `finer_temperature` where that is
        given: low values there keep the drawn face and calm its detail.
        """
        images: list[Tensor] = []
        coarser: Coarser | None = None
        for k in range(self.depth, 0, -1):
            level = self.level(k)
            calmed = temperature if coarser is None or finer_temperature is None else finer_temperature
            z = level.prior(coarser, count).sample(generator, calmed)
            condition = None if coarser is None else expand(coarser.image, self.kind)
            mean = level.decode(z, condition)
            rebuilt = mean if condition is None else condition + mean
            images.insert(0, rebuilt)
            coarser = Coarser(rebuilt, mean, float(level.log_sigma))
        return images
