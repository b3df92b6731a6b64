"""VAE/GAN (Larsen et al. 2016): a VAE whose reconstruction error is taken on a discriminator's features.

    L_features = -E_q log N(Dis_l(x); Dis_l(x~), I)            L_gan = log Dis(x) + log(1 - Dis(x~)) + log(1 - Dis(x_p))
    encoder        KL + L_features
    decoder        gamma L_features - L_gan
    discriminator  L_gan, maximised

x~ is decoded from the posterior, x_p from the prior. Each part minimises its own loss only. The decoder minimises
-log Dis in place of log(1 - Dis), which has a gradient where the discriminator is sure (Goodfellow et al. 2014).
Neither runs away from the other, as in the authors' program: the discriminator waits while its error on either kind of
image is more than MARGIN below a guess's, log 2 nats; the decoder's L_gan while it is as much above; where both hold,
none waits.
Shapes: images B 3 S S on [0, 1]; terms are averaged over images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapcvae.models.batch_norm import batch_norms
from lapcvae.models.cascade import run_level
from lapcvae.models.level import LevelCVAE
from lapcvae.models.likelihood import permutation_importance
from lapcvae.models.noise import Drawn
from lapcvae.models.published import Discriminator
from lapcvae.training.arrays import LevelArrays
from lapcvae.training.objective import batch_log_sigma, terms
from lapcvae.training.processes import over_processes
from lapcvae.training.schedule import warm_up
from lapcvae.training.trainable import KL_UNITS, Terms, Trainable

# gamma: what a nat of feature error weighs for the decoder beside a nat of being found out. The error begins with some
# 2,000 nats, so both are then of order 1.
FEATURE_WEIGHT = 1e-3
MARGIN = 0.35  # nats


class VaeGanTraining(Trainable):
    """The VAE that is kept, and the discriminator that is not."""

    def __init__(self, level: LevelCVAE, arrays: LevelArrays, feature_weight: float = FEATURE_WEIGHT) -> None:
        super().__init__()
        self.level, self.arrays, self.feature_weight = level, arrays, feature_weight
        self.discriminator = Discriminator(level.side)

    def parts(self) -> Mapping[str, list[nn.Parameter]]:
        """Encoder, decoder and discriminator."""
        encoder = [*self.level.encoder.parameters(), *self.level.to_posterior.parameters()]
        decoder = [*self.level.from_latent.parameters(), *self.level.renderer.parameters()]
        return {"encoder": encoder, "decoder": decoder, "discriminator": list(self.discriminator.parameters())}

    def noise_shapes(self) -> list[tuple[int, ...]]:
        """Of the posterior, and in training of faces drawn from the prior."""
        return [self.level.latent_shape] * (2 if self.training else 1)

    def pick(self, rows: np.ndarray, flips: np.ndarray) -> tuple[Tensor, ...]:
        """The photographs, as they are stored."""
        return self.arrays.pick(rows, flips)

    def forward(self, packed: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Terms:
        """The VAE's own rate and distortion in image space, which the curve shows; where gradients are wanted, all."""
        x, _ = self.arrays.unpack(packed)
        done = run_level(self.level, x, None, "burt", Drawn(noise[:1]))
        rate, _, distortion = terms(self.level, done)
        found = {
            "rate_nats": rate,
            "distortion_nats": distortion,
            "log_sigma": batch_log_sigma(self.level, done).detach(),
            KL_UNITS: done.kl().detach().mean(0).flatten(),
        }
        if not self.training or not torch.is_grad_enabled():
            return found
        with _statistics_kept(self.level):
            drawn = self.level.decode(noise[1], None)
        features, logits = self.discriminator(torch.cat([x, done.mean, drawn]) * 2 - 1)
        real, rebuilt, _ = features.float().chunk(3)
        is_real, is_rebuilt, is_drawn = logits.float().chunk(3)
        return {
            **found,
            "feature_nats": 0.5 * (real - rebuilt).square().sum((1, 2, 3)).mean(),
            "real_nats": F.softplus(-is_real).mean(),
            "made_nats": F.softplus(is_rebuilt).mean() + F.softplus(is_drawn).mean(),
            "_decoder_nats": F.softplus(-is_rebuilt).mean() + F.softplus(-is_drawn).mean(),
        }

    def importance_nats(self, packed: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        """Of z."""
        x, _ = self.arrays.unpack(packed)
        done = run_level(self.level, x, None, "burt", Drawn(noise))
        return permutation_importance(self.level, done, batch_log_sigma(self.level, done)).mean()

    def losses(self, batch_terms: Terms, update: int | Tensor) -> Mapping[str, Tensor]:
        """Of each part; the encoder's a target dimension, as every bound here."""
        rate, features = batch_terms["rate_nats"], batch_terms["feature_nats"]
        settings = self.level.settings
        warm = warm_up(update, settings.kl_warmup)
        real, made = batch_terms["real_nats"], batch_terms["made_nats"]
        # For the whole batch to say, which several processes may share.
        errors = torch.stack([over_processes(real), over_processes(made) / 2]).detach() - math.log(2)
        sure, lost = (errors < -MARGIN).any(), (errors > MARGIN).any()
        return {
            "encoder": (warm * settings.kl_weight * rate + features) / self.dimensions(),
            "decoder": self.feature_weight * features + (~lost | sure) * batch_terms["_decoder_nats"],
            "discriminator": (~sure | lost) * (real + made),
        }

    def dimensions(self) -> int:
        """3 S S."""
        return 3 * self.level.side**2


@contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """Batch norm's running statistics stay those of reconstructions, which are measured with them."""
    norms = batch_norms(model)
    for part in norms:
        part.track_running_stats = False
    try:
        yield
    finally:
        for part in norms:
            part.track_running_stats = True
