"""One model before the gate: every measure that decides, photograph by photograph, on the frozen test set."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lapcvae.data.batches import PackedImages
from lapcvae.evaluation import networks
from lapcvae.evaluation.evaluate import evaluate
from lapcvae.evaluation.features import FeatureNetwork
from lapcvae.models import mobilenet
from lapcvae.models.cascade import Cascade

FEATURE_DISTANCE = f"feature_distance_{mobilenet.NAME}"
_LATENCY_IMAGES, _LATENCY_TRIES = 8, 7


@dataclass(frozen=True)
class Trial:
    """columns: one value a photograph, lower is better. scalars: one a model, lower is better. absent: measures that
    could not be taken here, and why.
    """

    columns: dict[str, np.ndarray]
    scalars: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def means(self) -> dict[str, float]:
        """All measures as one number each."""
        return {name: float(values.mean()) for name, values in self.columns.items()} | self.scalars


def measure(
    model: Cascade,
    photographs: PackedImages,
    test: np.ndarray,
    calibration: np.ndarray,
    batch: int,
    seed: int,
    network: FeatureNetwork | None,
) -> Trial:
    """Measure on the `test` rows; the bound's s is calibrated on the `calibration` rows, as in the report.

    columns: `rmse_posterior_mean` (0-255), `bits_per_dim`, `dissimilarity` (1 - SSIM), `sharpness_error`: how far the
    reconstruction's detail is from the photograph's, |ln(variance of the Laplacian / that of the photograph)|; and with
    a `network`, `feature_distance_NETWORK`: the squared distance of photograph and reconstruction in its features, each
    brought to unit length, 0 to 4. Without a network that one is absent, and nothing stands in for it.
    scalars: `inactive_share` of the latents, 0 to 1. Latency is measured apart, see `latency_s`.
    """
    done = evaluate(model, photographs, test, calibration, batch, seed)
    columns = {
        "rmse_posterior_mean": np.asarray(done.images["rmse_posterior_mean"], dtype=np.float64),
        "bits_per_dim": np.asarray(done.images["bits_per_dim"], dtype=np.float64),
        "dissimilarity": 1 - np.asarray(done.images["ssim"], dtype=np.float64),
    } | _of_reconstructions(model, photographs, test, batch, network)
    absent = {} if network is not None else {FEATURE_DISTANCE: networks.ABSENT}
    return Trial(columns, {"inactive_share": 1 - done.metrics["active_units"] / done.metrics["latents"]}, absent)


def latency_s(models: dict[str, Cascade], photographs: PackedImages, rows: np.ndarray) -> dict[str, float]:
    """Seconds a photograph for a reconstruction, the median of interleaved tries: other work slows both alike."""
    part = rows[:_LATENCY_IMAGES]
    x = photographs.gather(part, np.zeros_like(part))
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(_LATENCY_TRIES + 1):
        for name, model in models.items():
            _wait(x)
            start = time.perf_counter()
            model.reconstruct(x)
            _wait(x)
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(tries[1:])) / len(part) for name, tries in times.items()}  # the first warms up


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


@torch.no_grad()
def _of_reconstructions(
    model: Cascade, photographs: PackedImages, rows: np.ndarray, batch: int, network: FeatureNetwork | None
) -> dict[str, np.ndarray]:
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        x = photographs.gather(part, np.zeros_like(part))
        rebuilt = model.reconstruct(x)[0].rebuilt.clamp(0, 1)
        found = {"sharpness_error": (_detail(rebuilt) / _detail(x)).log().abs()}
        if network is not None:
            found[f"feature_distance_{network.name}"] = _feature_distances(network, x, rebuilt)
        for name, values in found.items():
            parts.setdefault(name, []).append(values.double().cpu())
    return {name: torch.cat(values).numpy() for name, values in parts.items()}


def _feature_distances(network: FeatureNetwork, x: Tensor, y: Tensor) -> Tensor:
    """Squared distance of each pair of images in features of unit length, B: length grows with contrast alone."""
    a, b = (F.normalize(network.features(images).double(), dim=1) for images in (x, y))
    return (a - b).square().sum(1)


def _detail(x: Tensor) -> Tensor:
    """Variance of the Laplacian of the grey image, B; B 3 S S on [0, 1]."""
    grey = x.mean(1)
    inner = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inner
    return laplacian.flatten(1).var(1).clamp_min(1e-8)
