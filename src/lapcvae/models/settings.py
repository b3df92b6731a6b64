"""What one level's conditional VAE is made of, and the presets that name whole settings.

A level's settings are the preset's, overridden by the keys of the shared `model` section, overridden by the level's
own keys. What a run used is written out resolved beside the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lapcvae.config import parse
from lapcvae.errors import ConfigError

Network = Literal["plain", "residual", "published"]
Likelihood = Literal["gaussian", "laplace", "pixelcnn"]


@dataclass(frozen=True)
class ModelSettings:
    """One level's model. The same class describes a plain VAE: a pyramid of one level.

    network            `plain`: 5x5 strided convolutions with batch norm, 2017 style; `residual`: patches and residual
                       blocks; `published`: the VAE of the published table, at its size (baselines only)
    width              channels: of the first convolution (plain), of every block (residual)
    blocks             residual blocks a resolution (residual only)
    latent             `vector`: one vector an image; `spatial`: a map of `latent_grid` x `latent_grid`
    latent_size        numbers in the vector, or channels of the map
    latent_grid        largest side of the map (spatial only): less at levels too small for it, or not halving to it
    loop               `closed`: the level models x_k - expand(x~_{k+1}); `open`: the Laplacian band h_k
    condition          the coarser image that training shows the level: `rebuilt`: x~_{k+1}; `true`: x_{k+1};
                       `noisy_true`: x_{k+1} plus noise of `true_noise`. Composed, a level always gets x~_{k+1}
    true_noise         standard deviation of that noise on the [0, 1] scale (noisy_true only)
    prior              `decoder_stats`: learned from mu_{k+1}, sigma_{k+1}; `latent`: from the posterior of z_{k+1};
                       `ancestral`: from expand(x~_{k+1}) and a sampled z_{k+1}; `standard`: N(0, I)
    draw               what new faces draw z_k from: `prior`: p(z_k | level k+1), as in the bound; `fitted`: the same,
                       with the mean and covariance of training faces' latents in its units (training/draws.py)
    residual_posterior the encoder speaks in the prior's units
    likelihood         `gaussian`; `laplace` (sigma is then its scale b); `pixelcnn`: an autoregressive density of the
                       256 values given mu_K (coarsest level only), from which samples are drawn there
    sigma              `optimal`: the likelihood's best sigma of each batch; `learned`: a parameter; `fixed`: sigma_255
    sigma_255          the fixed sigma on the 0-255 scale (fixed only)
    condition_noise    standard deviation of noise on x~_{k+1} in training, in units of sigma_{k+1} (rebuilt only)
    kl_weight          lambda_k; 1 is the evidence bound
    kl_warmup          updates over which the weight rises from 0
    free_bits          nats a latent (vector) or channel (map) that are not paid for (Kingma et al. 2016)
    perceptual_weight  nats a dimension added to the loss for each unit of `perceptual_mobilenetv2` from x~_k to x_k
    """

    network: Network = "residual"
    width: int = 64
    blocks: int = 1
    latent: Literal["vector", "spatial"] = "spatial"
    latent_size: int = 4
    latent_grid: int = 8
    loop: Literal["open", "closed"] = "closed"
    condition: Literal["rebuilt", "true", "noisy_true"] = "rebuilt"
    true_noise: float = 0.0
    prior: Literal["decoder_stats", "latent", "ancestral", "standard"] = "decoder_stats"
    draw: Literal["prior", "fitted"] = "prior"
    residual_posterior: bool = True
    likelihood: Likelihood = "gaussian"
    sigma: Literal["optimal", "learned", "fixed"] = "optimal"
    sigma_255: float = 0.0
    condition_noise: float = 0.0
    kl_weight: float = 1.0
    kl_warmup: int = 0
    free_bits: float = 0.0
    perceptual_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("width", "blocks", "latent_size", "latent_grid"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1")
        for name in (
            "condition_noise",
            "true_noise",
            "kl_weight",
            "kl_warmup",
            "free_bits",
            "sigma_255",
            "perceptual_weight",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative")
        for name, value, number in (("sigma", "fixed", "sigma_255"), ("condition", "noisy_true", "true_noise")):
            if (getattr(self, name) == value) != (getattr(self, number) > 0):
                raise ValueError(f"`{number}` above 0 and `{name}: {value}` go together: give both or neither")
        if self.network == "published" and self.latent != "vector":
            raise ValueError("`network: published` has `latent: vector`")
        if self.condition != "rebuilt" and self.condition_noise:
            raise ValueError(
                "`condition_noise` goes with `condition: rebuilt`; for a true image: `noisy_true`, `true_noise`"
            )

    @property
    def needs_coarser(self) -> bool:
        """Whether a level below the coarsest trains on what level k+1 made, and so after it."""
        return self.condition == "rebuilt" or self.prior != "standard"

    def latents(self) -> int:
        """Number of latent variables of this level."""
        return self.latent_size * (self.latent_grid**2 if self.latent == "spatial" else 1)


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "network": "plain",
        "width": 32,
        "latent": "vector",
        "latent_size": 64,
        "loop": "open",
        "prior": "decoder_stats",
        "residual_posterior": False,
        "sigma": "optimal",
    },
    "modern": {
        "network": "residual",
        "width": 64,
        "blocks": 2,
        "latent": "spatial",
        "latent_size": 4,
        "latent_grid": 8,
        "loop": "closed",
        "prior": "decoder_stats",
        "draw": "fitted",
        "residual_posterior": True,
        "sigma": "optimal",
        "kl_warmup": 100,
        "free_bits": 0.1,
    },
}


def resolve(shared: dict[str, Any], own: dict[str, Any], key: str) -> ModelSettings:
    """Settings of one level from the `model` section (with its `preset`) and the level's `model` keys.

    `key` names the level in errors. Raises `ConfigError` for an unknown preset or key.
    """
    shared = dict(shared)
    preset = shared.pop("preset", "modern")
    if preset not in PRESETS:
        raise ConfigError(f"params.yaml: `model.preset` is {preset!r}; choose one of {', '.join(sorted(PRESETS))}")
    parse(ModelSettings, shared, "model")
    return parse(ModelSettings, {**PRESETS[preset], **shared, **own}, key)
