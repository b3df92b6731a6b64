"""The composed model: levels run from coarse to fine, each conditioned on what the coarser ones rebuilt.

    x~_K = mu_K;   x~_k = expand(x~_{k+1}) + mu_k

Shapes: images B 3 S S on the [0, 1] scale; lists of levels hold level 1 first, as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lapcvae.models.gaussian import DiagonalGaussian, kl_divergence
from lapcvae.models.level import Coarser, LevelCVAE
from lapcvae.models.noise import Noise
from lapcvae.models.pixelcnn import MIXTURES
from lapcvae.pyramid.filters import PyramidKind, expand, reduce
from lapcvae.pyramid.laplacian import gaussian_pyramid


@dataclass(frozen=True)
class LevelPass:
    """One level run on a batch.

    target, mean: what was modelled and mu_k (B 3 S S). condition: expand(x~_{k+1}), or None at level K.
    rebuilt: x~_k. posterior, prior: of z_k. z: the latents that were decoded. error: target minus mean in the
    coordinates that the likelihood counts (pixels, but for an open Haar level).
    """

    target: Tensor
    mean: Tensor
    condition: Tensor | None
    rebuilt: Tensor
    posterior: DiagonalGaussian
    prior: DiagonalGaussian
    z: Tensor
    error: Tensor

    def kl(self) -> Tensor:
        """KL(q_k || p_k) of each latent in nats, B by the latents' shape."""
        return kl_divergence(self.posterior, self.prior)


@dataclass(frozen=True)
class Draw:
    """Faces drawn. images: [x~_1 ... x~_K], each B 3 S S. latents: z_k by level number."""

    images: list[Tensor]
    latents: dict[int, Tensor]


def run_level(
    level: LevelCVAE,
    x: Tensor,
    coarser: Coarser | None,
    kind: PyramidKind,
    generator: Noise | None,
) -> LevelPass:
    """Encode and decode x_k (B 3 S S) given level k+1; z_k is the posterior mean where `generator` is None."""
    if generator is not None and level.settings.prior == "ancestral":
        coarser = _drawn(coarser, generator)
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
    return LevelPass(target, mean, condition, rebuilt, posterior, prior, z, level.error(target, mean))


def _drawn(coarser: Coarser | None, generator: Noise) -> Coarser | None:
    """Level k+1 with a sample of its posterior in place of the posterior, where it comes with one."""
    if coarser is None or coarser.z is None or coarser.z_log_std is None:
        return coarser
    return replace(coarser, z=DiagonalGaussian(coarser.z, coarser.z_log_std).sample(generator), z_log_std=None)


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
    def reconstruct(self, x: Tensor, generator: Noise | None = None) -> list[LevelPass]:
        """`run`, without a gradient."""
        return self.run(x, generator)

    def run(self, x: Tensor, generator: Noise | None = None) -> list[LevelPass]:
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
            coarser = Coarser(done.rebuilt, done.mean, self.level(k).log_sigma.detach().double(), done.z)
        return passes

    @torch.no_grad()
    def sample(
        self,
        count: int,
        generator: torch.Generator,
        temperature: float = 1.0,
        finer_temperature: float | None = None,
        keep: Mapping[int, Tensor] | None = None,
        paint: Mapping[int, Tensor] | None = None,
    ) -> Draw:
        """`count` faces drawn as each level's `draw` says, decoder means all the way (but for a PixelCNN, whose pixels
        are drawn); with `keep`, partial sampling.

        temperature scales the prior's standard deviation, at the levels below K by `finer_temperature` where that is
        given: low values there keep the drawn face and calm its detail.
        keep: latents that are not drawn, by level number, each `count` (or 1, for all) by the level's latent shape;
        `latents` gives those of photographs, `Draw.latents` those of an earlier draw.

        paint: images put in place of x~_k, by level number, B 3 s s; finer levels go on from them.

        Every face and level has noise of its own, seeded from `generator`: keeping a level, or drawing more faces,
        leaves the noise of the others as it was. The noise is made on the processor, so a generator on the processor
        draws the same faces for every device. Raises `ValueError` for latents of another shape or an unknown level.
        """
        keep, paint = keep or {}, paint or {}
        if unknown := sorted({*keep, *paint} - set(range(1, self.depth + 1))):
            raise ValueError(f"there is no level {unknown[0]}: the levels are 1 to {self.depth}")
        # Row by row, so that the first faces are the same however many are drawn.
        seeds = torch.randint(2**62, (count, self.depth), generator=generator, device=generator.device).tolist()
        images: list[Tensor] = []
        latents: dict[int, Tensor] = {}
        coarser: Coarser | None = None
        for k in range(self.depth, 0, -1):
            level = self.level(k)
            prior = level.prior(coarser, count)
            calmed = temperature if coarser is None or finer_temperature is None else finer_temperature
            if k in keep:
                z = _given(keep[k], prior.mean, f"keep[{k}]")
            else:
                z = level.draw(prior, _noise([row[k - 1] for row in seeds], prior.mean), calmed)
            condition = None if coarser is None else expand(coarser.image, self.kind)
            mean = level.decode(z, condition)
            rebuilt = mean if condition is None else condition + mean
            if level.pixels is not None and k not in keep:
                mean = rebuilt = level.pixels.sample(mean, _pixel_noise([row[k - 1] for row in seeds], mean))
            if k in paint:
                painted = _given(paint[k], rebuilt, f"paint[{k}]")
                mean, rebuilt = mean + (painted - rebuilt), painted
            images.insert(0, rebuilt)
            latents[k] = z
            coarser = Coarser(rebuilt, mean, float(level.log_sigma), z)
        return Draw(images, latents)


def latents(passes: list[LevelPass]) -> dict[int, Tensor]:
    """The latents of a reconstruction by level number, for `Cascade.sample`'s `keep`."""
    return {k: done.z for k, done in enumerate(passes, 1)}


def _noise(seeds: list[int], like: Tensor) -> Tensor:
    """Standard normal noise in the shape of `like`, one seed a row, the same on every device."""
    rows = [torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(like)


def _pixel_noise(seeds: list[int], like: Tensor) -> Tensor:
    """Uniform noise for a PixelCNN's pixels, one seed a row, other than the latents'."""
    shape = (*like.shape[-2:], MIXTURES + 3)
    rows = [torch.rand(shape, generator=torch.Generator().manual_seed(seed + 2**62)) for seed in seeds]
    return torch.stack(rows).to(like)


def _given(x: Tensor, like: Tensor, name: str) -> Tensor:
    """Given latents or images in the shape of `like`, repeated where there is one for all."""
    if x.shape[1:] != like.shape[1:] or len(x) not in (1, len(like)):
        raise ValueError(f"{name} is {tuple(x.shape)}; {tuple(like.shape)} is needed, or one for all")
    return x.to(like).expand_as(like)
