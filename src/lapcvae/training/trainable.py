"""What the loop trains: networks, the tensors of a batch, and what is minimised.

A level, a baseline, a VAE/GAN or a whole cascade is a subclass of `Trainable`; `train` in loop.py knows no more of it
than this file says. Everything in its `state_dict` is checkpointed and averaged.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from lapcvae.models.cascade import run_level
from lapcvae.models.gaussian import gaussian_nll
from lapcvae.models.level import LevelCVAE
from lapcvae.models.likelihood import permutation_importance
from lapcvae.models.mobilenet import load_mobilenet
from lapcvae.models.noise import Drawn
from lapcvae.models.perceptual import METRIC, perceptual_distance
from lapcvae.pyramid.filters import PyramidKind
from lapcvae.training.arrays import LevelArrays
from lapcvae.training.objective import batch_log_sigma, noisy, terms
from lapcvae.training.schedule import warm_up

Terms = dict[str, Tensor]
KL_UNITS = "kl_units_nats"

# Beside a PixelCNN's own likelihood, the picture mu_K it is given is held to x_K as a Gaussian's mean with this weight:
# x~_K is then the face that z_K means, and z_K is not ignored for what neighbouring pixels tell already.
MEAN_WEIGHT = 0.1


class Trainable(nn.Module):
    """One thing to train. The loop calls, in this order for every batch: `pick`, `forward`, `losses`.

    A step is a pure function of tensors: all randomness comes in through `noise`, one tensor a shape in
    `noise_shapes`, B by that shape. `forward` is what `torch.compile` compiles and what several processes share the
    work of: each gets its own rows of the batch, and the gradients are averaged. So `forward` must treat images alike
    and independently, but for what it takes through `over_processes`.
    """

    def parts(self) -> Mapping[str, list[nn.Parameter]]:
        """Parameters by part. Each part has its own optimiser and minimises its own loss only. By default one part."""
        return {"model": [p for p in self.parameters() if p.requires_grad]}

    def noise_shapes(self) -> list[tuple[int, ...]]:
        """Shapes, without the batch axis, of the standard normal tensors `forward` takes, in order.

        They may differ between training and evaluation mode.
        """
        raise NotImplementedError

    def pick(self, rows: np.ndarray, flips: np.ndarray) -> tuple[Tensor, ...]:
        """The packed tensors of these rows and orientations (B int64 each), on the device or in page-locked memory.

        Decoding and augmentation belong in `forward`: packed bytes are what travels. Must not use the networks.
        """
        raise NotImplementedError

    def forward(self, packed: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Terms:
        """Named terms of a batch, averaged over its images. Called under autocast; return fp32.

        `rate_nats` and `distortion_nats` (scalars) must be among them: the curve shows them, and their sum as
        `loss_nats`. Other scalars are logged under their own names (`log_sigma` as `sigma`), but for those that begin
        with `_`. Vectors are not logged: they are the KL of each latent, `kl_units_nats`, or of several levels
        `kl_units_nats_k` each, for the count of unused latents and the collapse alarm.
        """
        raise NotImplementedError

    def importance_nats(self, packed: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor | None:
        """The latents' permutation importance, for the collapse alarm (`models.likelihood`); None where it is not told.

        Called as `forward` is, in evaluation mode and with two photographs or more.
        """
        return None

    def losses(self, batch_terms: Terms, update: int | Tensor) -> Mapping[str, Tensor]:
        """What each part minimises: a scalar a name in `parts`. Order is that of stepping.

        update: counted from 0; a 0-d tensor where updates are replayed (replayed.py).
        """
        raise NotImplementedError

    def dimensions(self) -> int:
        """Numbers of one image that are modelled: nats are divided by it where sizes are compared."""
        raise NotImplementedError


class LevelTraining(Trainable):
    """One level of the pyramid, or a plain VAE as a pyramid of one level."""

    def __init__(self, level: LevelCVAE, arrays: LevelArrays, kind: PyramidKind) -> None:
        super().__init__()
        self.level, self.arrays, self.kind = level, arrays, kind
        s, finer = level.settings, arrays.coarse_image is not None
        self._noisy = finer and (s.condition_noise > 0 or s.true_noise > 0)
        # Not a part of the module: its weights are neither trained nor checkpointed nor averaged.
        self._features = (load_mobilenet().to(arrays.images.device),) if s.perceptual_weight else ()
        self._coarser_latents = [arrays.latent_shape] if finer and s.prior == "ancestral" else []

    def noise_shapes(self) -> list[tuple[int, ...]]:
        """Noise on the coarser image in training where that is asked for, of z_{k+1} where it is read, then z_k's."""
        half = self.level.side // 2
        noise = [(3, half, half)] * (self._noisy and self.training)
        return [*noise, *self._coarser_latents, self.level.latent_shape]

    def pick(self, rows: np.ndarray, flips: np.ndarray) -> tuple[Tensor, ...]:
        """x_k, and where there is one level k+1's image and mean, as they are stored."""
        return self.arrays.pick(rows, flips)

    def forward(self, packed: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Terms:
        """Rate and distortion of the level on a batch."""
        x, coarser = self.arrays.unpack(packed)
        drawn = Drawn(noise)
        if self.training:
            coarser = noisy(coarser, self.level.settings, drawn)
        done = run_level(self.level, x, coarser, self.kind, drawn)
        rate, paid, distortion = terms(self.level, done)
        further: Terms = {}
        for network in self._features:
            further[METRIC] = perceptual_distance(network, x, done.rebuilt).mean()
        if self.level.pixels is not None:
            sigma = batch_log_sigma(self.level, done)
            further["_mean_nats"] = gaussian_nll(done.error.square(), sigma).sum((1, 2, 3)).mean()
        return {
            **further,
            "rate_nats": rate,
            "distortion_nats": distortion,
            "log_sigma": batch_log_sigma(self.level, done),
            "_paid_nats": paid,
            KL_UNITS: done.kl().detach().mean(0).flatten(),
        }

    def importance_nats(self, packed: tuple[Tensor, ...], noise: tuple[Tensor, ...]) -> Tensor:
        """Of z_k."""
        x, coarser = self.arrays.unpack(packed)
        done = run_level(self.level, x, coarser, self.kind, Drawn(noise))
        return permutation_importance(self.level, done, batch_log_sigma(self.level, done)).mean()

    def losses(self, batch_terms: Terms, update: int | Tensor) -> Mapping[str, Tensor]:
        """Distortion and the weighted rate, a target dimension: one learning rate and clipping norm suit every size."""
        settings = self.level.settings
        warm = warm_up(update, settings.kl_warmup)
        loss = batch_terms["distortion_nats"] + warm * settings.kl_weight * batch_terms["_paid_nats"]
        if "_mean_nats" in batch_terms:
            loss = loss + MEAN_WEIGHT * batch_terms["_mean_nats"]
        loss = loss / self.dimensions()
        if METRIC in batch_terms:
            loss = loss + settings.perceptual_weight * batch_terms[METRIC]
        return {"model": loss}

    def dimensions(self) -> int:
        """3 S S."""
        return 3 * self.level.side**2
