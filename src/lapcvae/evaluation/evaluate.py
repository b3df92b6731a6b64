"""All measures of one model on people it was not trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lapcvae.data.batches import PackedImages
from lapcvae.errors import DataError
from lapcvae.evaluation import bound, budget, detail, fidelity
from lapcvae.evaluation.intervals import summary
from lapcvae.io.progress import progress
from lapcvae.models.cascade import Cascade, LevelPass
from lapcvae.models.level import LevelCVAE
from lapcvae.models.likelihood import level_nll, permutation_importance
from lapcvae.training.guards import UNUSED_NATS

# A latent is active where the posterior mean moves with the photograph (Burda et al. 2016, section 5.1).
ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True)
class EvaluationConfig:
    """The `evaluation` section of params.yaml.

    batch: photographs at a time. samples: faces drawn for the sheets. finer_temperature: scale of the prior's standard
    deviation below the coarsest level in the second sheet of samples (the first is drawn at 1 throughout).
    distance_images: pictures a set at most in feature distances and in the search for the nearest training photograph.
    """

    batch: int = 128
    samples: int = 40
    finer_temperature: float = 0.5
    distance_images: int = 1000

    def __post_init__(self) -> None:
        if self.batch < 1 or self.samples < 1 or self.finer_temperature < 0:
            raise ValueError("`batch` and `samples` must be at least 1, `finer_temperature` at least 0")
        if self.distance_images < 2:
            raise ValueError("`distance_images` must be at least 2: a distance is between sets")


@dataclass(frozen=True)
class Evaluation:
    """metrics: nested numbers, see `evaluate`. images: per-image columns, each of as many values as photographs."""

    metrics: dict[str, Any]
    images: dict[str, np.ndarray]


@torch.no_grad()
def evaluate(
    model: Cascade,
    photographs: PackedImages,
    test: np.ndarray,
    calibration: np.ndarray,
    batch: int,
    seed: int,
    people: np.ndarray | None = None,
) -> Evaluation:
    """Measure a model on the `test` rows; the bound's s is calibrated on the `calibration` rows (validation people).

    people: names of whom the `test` rows show, one a row, for intervals (see `intervals`); None: each another person.
    Metrics: `rmse_posterior_mean`, `rmse_posterior_sample` (0-255; mean, std, root_of_mean), `psnr_db`, `ssim`,
    `ms_ssim`, `sharpness_ratio` and `band_energy_ratio.pxN` of the reconstruction to the photograph (all at the
    posterior mean), `bits_per_dim`, `rate_nats`, `distortion_nats` (image space), `sigma_255`,
    `coefficient_bound_nats` (the sum of L_k: a bound on pyramid coefficients, not on the image), `latents`,
    `active_units`, `parameters`, and `levels.k` with the same a level, its error budget, `unused_latents`, those
    whose KL is below `UNUSED_NATS`, and (of two photographs or more) `importance_nats`, the latents' permutation
    importance.
    Raises `DataError` where there is nothing to measure on.
    """
    if len(test) == 0:
        raise DataError("no photograph is in the test split; add people or raise `split.test_share` in params.yaml")
    held_out = calibration if len(calibration) else test
    sigma = bound.calibrated_sigma(
        float(np.mean([e for x, p in _passes(model, photographs, held_out, batch, seed) for e in _mse_255(x, p)]))
    )
    sampled = _sampled(model, photographs, test, batch, seed, sigma)
    at_mean = _at_mean(model, photographs, test, batch)
    dimensions = 3 * photographs.side**2
    total_rate = sum(sampled[f"rate_{k}"] for k in range(1, model.depth + 1))
    bits = bound.bits_per_dim(
        torch.from_numpy(sampled["nll"]), torch.from_numpy(np.asarray(total_rate)), dimensions
    ).numpy()
    levels = {str(k): _level_metrics(model.level(k), k, sampled, at_mean) for k in range(1, model.depth + 1)}
    columns = {
        "rmse_posterior_mean": at_mean["rmse"],
        "rmse_posterior_sample": sampled["rmse"],
        "psnr_db": fidelity.psnr_db(at_mean["rmse"]),
        "ssim": at_mean["ssim"],
        "ms_ssim": at_mean["ms_ssim"],
        "sharpness_ratio": at_mean["sharpness_ratio"],
        **{name: values for name, values in at_mean.items() if name.startswith("band_px")},
        "bits_per_dim": bits,
        "rate_nats": np.asarray(total_rate),
    }
    owners = np.arange(len(test)).astype(str) if people is None else people
    measured = {name: summary(values, owners) for name, values in columns.items()}
    for name in ("rmse_posterior_mean", "rmse_posterior_sample"):
        measured[name] = {**fidelity.rmse_summary(columns[name]), **measured[name]}
    bands = {name.removeprefix("band_"): measured.pop(name) for name in list(measured) if name.startswith("band_px")}
    del measured["rate_nats"]
    metrics = {
        **measured,
        "band_energy_ratio": bands,
        "rate_nats": float(np.mean(total_rate)),
        "distortion_nats": float(np.mean(sampled["nll"])),
        "sigma_255": sigma,
        "coefficient_bound_nats": sum(level["loss_nats"] for level in levels.values()),
        "latents": sum(level["latents"] for level in levels.values()),
        "active_units": sum(level["active_units"] for level in levels.values()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "photographs": len(test),
        "people": len(np.unique(owners)),
        "levels": levels,
    }
    return Evaluation(metrics, columns)


def _passes(
    model: Cascade, photographs: PackedImages, rows: np.ndarray, batch: int, seed: int | None
) -> Iterator[tuple[Tensor, list[LevelPass]]]:
    """Batches and their passes; latents are sampled from `seed`, or at the posterior mean where it is None."""
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        x = photographs.gather(part, np.zeros_like(part))
        noise = None
        if seed is not None:
            noise = torch.Generator(x.device)
            noise.manual_seed(int(np.random.SeedSequence([seed, 4, start]).generate_state(1)[0]))
        yield x, model.reconstruct(x, noise)


def _sampled(
    model: Cascade, photographs: PackedImages, rows: np.ndarray, batch: int, seed: int, sigma: float
) -> dict[str, np.ndarray]:
    """One draw of the hierarchical posterior a photograph: errors, and the terms of both bounds."""
    parts: dict[str, list[np.ndarray]] = {}
    with progress(total=len(rows), label="posterior samples", unit="image") as bar:
        for x, passes in _passes(model, photographs, rows, batch, seed):
            _append(parts, "rmse", fidelity.rmse(x, passes[0].rebuilt))
            _append(parts, "nll", bound.discretised_nll(x, passes[0].rebuilt, sigma).cpu().numpy())
            for k, done in enumerate(passes, 1):
                distortion = level_nll(model.level(k), done, model.level(k).log_sigma)
                _append(parts, f"rate_{k}", done.kl().flatten(1).sum(1).double().cpu().numpy())
                _append(parts, f"distortion_{k}", distortion.double().cpu().numpy())
                if len(x) > 1:  # of one photograph alone it says nothing
                    importance = permutation_importance(model.level(k), done, model.level(k).log_sigma)
                    _append(parts, f"importance_{k}", importance.double().cpu().numpy())
            bar.update(len(x))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _at_mean(model: Cascade, photographs: PackedImages, rows: np.ndarray, batch: int) -> dict[str, np.ndarray]:
    """Reconstructions at the posterior mean: errors, the error budget, and how far posterior means move."""
    parts: dict[str, list[np.ndarray]] = {}
    with progress(total=len(rows), label="reconstructions", unit="image") as bar:
        for x, passes in _passes(model, photographs, rows, batch, None):
            _append(parts, "rmse", fidelity.rmse(x, passes[0].rebuilt))
            _append(parts, "ssim", fidelity.ssim(x, passes[0].rebuilt))
            _append(parts, "ms_ssim", fidelity.ms_ssim(x, passes[0].rebuilt))
            for name, ratio in detail.ratios(passes[0].rebuilt, x).items():
                _append(parts, name, ratio)
            for name, errors in budget.squared_errors(x, passes, model.kind).items():
                for k, error in enumerate(errors, 1):
                    _append(parts, f"{name}_mse_{k}", error)
            for k, done in enumerate(passes, 1):
                # In the prior's units, so that a learned prior's scale does not matter: Burda's own for N(0, I).
                moved = (done.posterior.mean - done.prior.mean) * (-done.prior.log_std).exp()
                _append(parts, f"moved_{k}", moved.flatten(1).cpu().numpy())
                _append(parts, f"kl_{k}", done.kl().flatten(1).cpu().numpy())
            bar.update(len(x))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _level_metrics(level: LevelCVAE, k: int, sampled: dict[str, np.ndarray], at_mean: dict[str, np.ndarray]) -> dict:
    rate, distortion = float(sampled[f"rate_{k}"].mean()), float(sampled[f"distortion_{k}"].mean())
    importance = sampled.get(f"importance_{k}")
    active = int((at_mean[f"moved_{k}"].var(0) > ACTIVE_VARIANCE).sum())
    latents = int(np.prod(level.latent_shape))
    kl = np.sort(at_mean[f"kl_{k}"].mean(0, dtype=np.float64))[::-1]
    root = {name: float(np.sqrt(at_mean[f"{name}_mse_{k}"].mean())) for name in ("level", "cumulative", "band")}
    return {
        "side_px": level.side,
        "rate_nats": rate,
        "distortion_nats": distortion,
        "loss_nats": rate + distortion,
        "sigma_255": 255 * float(level.log_sigma.exp()),
        "latents": latents,
        "active_units": active,
        "active_share": active / latents,
        "unused_latents": int((kl < UNUSED_NATS).sum()),
        **({"importance_nats": float(importance.mean())} if importance is not None else {}),
        "rate_in_top_tenth": float(kl[: max(1, latents // 10)].sum() / max(kl.sum(), 1e-12)),
        "parameters": sum(p.numel() for p in level.parameters()),
        "rmse_own_size": root["level"],
        "rmse_if_stopped_here": root["cumulative"],
        "rmse_left_in_band": root["band"],
    }


def _mse_255(x: Tensor, passes: list[LevelPass]) -> list[float]:
    error = (passes[0].rebuilt.double() - x.double()) * 255
    return error.square().mean((1, 2, 3)).tolist()


def _append(parts: dict[str, list[np.ndarray]], name: str, values: np.ndarray) -> None:
    parts.setdefault(name, []).append(values)
