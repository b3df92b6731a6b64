"""How far a batch of photographs lies from those a model was trained on: image statistics and encoder features.

Two measures a column. PSI, the population stability index, over bins that hold equal shares of the reference:
    PSI = sum_b (p_b - r_b) ln(p_b / r_b)
Of two draws from one distribution it is not 0 but about (B - 1)(1/n + 1/m) (Yurdakul 2018), which is taken off, so that
a small batch is not taken for a changed one. And the Kolmogorov-Smirnov statistic, with its asymptotic p value.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lapcvae.io.atomic import atomic_path
from lapcvae.models.cascade import Cascade
from lapcvae.pyramid.laplacian import gaussian_pyramid

STATISTICS = ("brightness", "contrast", "aligned_sharpness", "red", "green", "blue", "black_share")
_BINS = 10
_AXES = 8  # principal axes of the encoder's features that are compared
_KEPT = 5000  # photographs of a reference that are kept
_BATCH = 256


@dataclass(frozen=True)
class DriftConfig:
    """The `retrain.drift` section of params.yaml.

    measure: what the thresholds are for: `psi` (corrected, 0 and up) or `ks` (the statistic, 0 to 1). notice: from
    here on drift is reported as such, and a batch is trained on however few it brings. veto: from here on the batch is
    set aside. min_photographs: of a smaller batch nothing is concluded.
    """

    measure: Literal["psi", "ks"]
    notice: float
    veto: float
    min_photographs: int

    def __post_init__(self) -> None:
        if not 0 < self.notice <= self.veto or self.min_photographs < 2:
            raise ValueError("0 < `notice` <= `veto` and `min_photographs` >= 2 are needed")


@dataclass(frozen=True)
class ColumnDrift:
    """One column: `psi` (corrected), `ks`, `p_value` of ks, and the means of reference and batch."""

    column: str
    psi: float
    ks: float
    p_value: float
    reference_mean: float
    batch_mean: float


@dataclass(frozen=True)
class Drift:
    """All columns, the furthest first by `measure`; `verdict` is `none`, `notice`, `veto` or `unknown` (too few)."""

    verdict: Literal["none", "notice", "veto", "unknown"]
    worst: float
    photographs: int
    columns: tuple[ColumnDrift, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def describe(images: np.ndarray, model: Cascade | None) -> dict[str, np.ndarray]:
    """Columns of N aligned faces (N S S 3 uint8): the image statistics, and with a model its features.

    `features`: N by D, the posterior means of the coarsest level, which hold most of what a face is.
    """
    grey = images.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    inner = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inner
    colours = images.reshape(len(images), -1, 3).mean(1, dtype=np.float64)
    columns = {
        "brightness": grey.mean((1, 2)),
        "contrast": grey.std((1, 2)),
        "aligned_sharpness": np.log1p(laplacian.var((1, 2))),
        "red": colours[:, 0],
        "green": colours[:, 1],
        "blue": colours[:, 2],
        "black_share": (grey < 1).mean((1, 2)),
    }
    columns = {name: values.astype(np.float64) for name, values in columns.items()}
    if model is not None and len(images):
        columns["features"] = _features(images, model)
    return columns


@torch.no_grad()
def _features(images: np.ndarray, model: Cascade) -> np.ndarray:
    device, parts = next(model.parameters()).device, []
    coarsest = model.level(model.depth)
    for start in range(0, len(images), _BATCH):
        x = torch.from_numpy(np.array(images[start : start + _BATCH])).to(device).permute(0, 3, 1, 2).float() / 255
        smallest = gaussian_pyramid(x, model.depth, model.kind)[-1]
        posterior = coarsest.encode(smallest, None, coarsest.prior(None, len(x)))
        parts.append(posterior.mean.flatten(1).double().cpu().numpy())
    return np.concatenate(parts)


def thin(rows: np.ndarray, seed: int) -> np.ndarray:
    """At most 5,000 of the rows, drawn evenly: what a reference keeps."""
    return rows if len(rows) <= _KEPT else np.sort(np.random.default_rng([seed, 7]).choice(rows, _KEPT, replace=False))


def save_reference(columns: dict[str, np.ndarray], path: Path) -> None:
    """Write what `describe` gave as an .npz file of plain arrays."""
    arrays: dict[str, Any] = {name: values.astype(np.float32) for name, values in columns.items()}
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def load_reference(path: Path) -> dict[str, np.ndarray]:
    """Read what `save_reference` wrote; nothing in the file can run code."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name].astype(np.float64) for name in file.files}


def compare(reference: dict[str, np.ndarray], batch: dict[str, np.ndarray], config: DriftConfig) -> Drift:
    """The drift of `batch` from `reference`, both as `describe` gives them; features only where both have them."""
    pairs = {name: (reference[name], batch[name]) for name in STATISTICS if name in reference and name in batch}
    if "features" in reference and "features" in batch and reference["features"].shape[1] == batch["features"].shape[1]:
        old, new = _on_axes(reference["features"], batch["features"])
        pairs |= {f"feature_{i + 1}": (old[:, i], new[:, i]) for i in range(old.shape[1])}
    count = len(batch["brightness"])
    columns = [_column(name, old, new) for name, (old, new) in pairs.items()]
    columns.sort(key=lambda column: (-_value(column, config), column.column))
    worst = _value(columns[0], config)
    if count < config.min_photographs:
        return Drift("unknown", worst, count, tuple(columns))
    verdict: Literal["none", "notice", "veto"] = "none"
    if worst >= config.veto:
        verdict = "veto"
    elif worst >= config.notice:
        verdict = "notice"
    return Drift(verdict, worst, count, tuple(columns))


def _value(column: ColumnDrift, config: DriftConfig) -> float:
    return column.psi if config.measure == "psi" else column.ks


def _on_axes(reference: np.ndarray, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both on the reference's first principal axes: single latents are many, and most say little."""
    centre = reference.mean(0)
    _, _, axes = np.linalg.svd(reference - centre, full_matrices=False)
    axes = axes[:_AXES]
    return (reference - centre) @ axes.T, (batch - centre) @ axes.T


def _column(name: str, old: np.ndarray, new: np.ndarray) -> ColumnDrift:
    ks, p_value = kolmogorov_smirnov(old, new)
    means = (round(float(values.mean()), 9) + 0.0 for values in (old, new))  # of centred features, -1e-17 is 0
    return ColumnDrift(name, psi(old, new), ks, p_value, *means)


def psi(reference: np.ndarray, batch: np.ndarray, bins: int = _BINS) -> float:
    """The population stability index less what chance gives, at least 0. Empty bins count as half a photograph."""
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, bins + 1)[1:-1]))
    count = len(edges) + 1
    old = np.bincount(np.searchsorted(edges, reference, side="left"), minlength=count)
    new = np.bincount(np.searchsorted(edges, batch, side="left"), minlength=count)
    r = np.maximum(old, 0.5) / len(reference)
    p = np.maximum(new, 0.5) / len(batch)
    by_chance = (count - 1) * (1 / len(reference) + 1 / len(batch))
    return max(0.0, float(((p - r) * np.log(p / r)).sum()) - by_chance)


def kolmogorov_smirnov(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The largest distance of the two distribution functions, and its asymptotic two-sided p value."""
    first, second = np.sort(first), np.sort(second)
    points = np.concatenate([first, second])
    gap = np.searchsorted(first, points, "right") / len(first) - np.searchsorted(second, points, "right") / len(second)
    distance = float(np.abs(gap).max())
    effective = math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    x = (effective + 0.12 + 0.11 / effective) * distance  # Stephens (1970)
    if x < 0.2:
        return distance, 1.0
    tail = 2 * sum((-1) ** (j - 1) * math.exp(-2 * (j * x) ** 2) for j in range(1, 101))
    return distance, float(min(1.0, max(0.0, tail)))
