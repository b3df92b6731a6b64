"""The short table: the pyramid beside the plain VAEs, from reports/metrics.json."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from lapcvae.models.mobilenet import NAME as NETWORK
from lapcvae.training.guards import UNUSED_NATS, is_ignored

# heading, how to read it off a model's metrics
COLUMNS: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
    ("sqrt(MSE)", lambda m: f"{m['rmse_posterior_mean']['mean']:.2f} ± {m['rmse_posterior_mean']['std']:.2f}"),
    ("at a sample", lambda m: f"{m['rmse_posterior_sample']['mean']:.2f}"),
    ("PSNR dB", lambda m: f"{m['psnr_db']['mean']:.2f}"),
    ("SSIM", lambda m: f"{m['ssim']['mean']:.3f}"),
    ("MS-SSIM", lambda m: f"{m['ms_ssim']['mean']:.3f}"),
    ("sharpness", lambda m: f"{m['sharpness_ratio']['mean']:.2f}"),
    ("bits/dim", lambda m: f"{m['bits_per_dim']['mean']:.3f}"),
    ("rate nats", lambda m: f"{m['rate_nats']:.0f}"),
    ("latents", lambda m: f"{m['latents']:,} ({m['active_units']:,} active)"),
    ("parameters", lambda m: f"{m['parameters'] / 1e6:.2f} M"),
    ("updates", lambda m: f"{m['training']['updates']:,}" if "training" in m else "-"),
    ("seconds", lambda m: f"{m['training']['seconds']:.0f}" if "training" in m else "-"),
]

_DISTANCES = ("kd", "fd")


def distance_rows(metrics: dict[str, Any]) -> list[list[str]]:
    """A table of distances between sets: real people, reconstructions and samples of each model, a feature distance a
    column. Empty where none was measured.
    """
    ours = next(iter(metrics.values()))
    keys = [key for key in ours if key.partition("_")[0] in _DISTANCES and isinstance(ours[key], dict)]
    if not keys:
        return []
    lines = [["", *(f"{key}, n = {ours[key]['n']}" for key in keys)]]
    lines.append(["other people (floor)", *(f"{ours[key]['floor']:.4g}" for key in keys)])
    for kind in ("reconstructions", "samples"):
        lines += [
            [f"{kind}: {name}", *(_distance(values[key][kind]) for key in keys)] for name, values in metrics.items()
        ]
    return lines


def difference_rows(metrics: dict[str, Any]) -> list[list[str]]:
    """Our model against each other one, a measure a line: paired differences, their 95 % intervals, and ratios of
    means. Empty where there is no other; measures that no model has are left out.
    """
    against: dict[str, Any] = next(iter(metrics.values())).get("against", {})
    if not against:
        return []
    lines = [["", *(f"against {name}" for name in against)]]
    for heading, path, digits in DIFFERENCES:
        cells = [_difference(_at(found, path), digits) for found in against.values()]
        if any(cells):
            lines.append([heading, *cells])
    return lines


def band_rows(metrics: dict[str, Any]) -> list[list[str]]:
    """Energy of each band over the photographs', of reconstructions and of samples, a model a line."""
    bands = list(next(iter(metrics.values()))["band_energy_ratio"])
    bands.sort(key=lambda band: -int(band.removeprefix("px")))
    sides = [band.removeprefix("px") + " px" for band in bands]
    lines = [["", *sides, *(f"samples, {side}" for side in sides), "samples, sharpness"]]
    for name, values in metrics.items():
        drawn = values["samples"]
        lines.append(
            [
                name,
                *(f"{values['band_energy_ratio'][band]['mean']:.2f}" for band in bands),
                *(f"{drawn['band_energy_ratio'][band]:.2f}" for band in bands),
                f"{drawn['sharpness_ratio']:.2f}",
            ]
        )
    return lines


# heading, where it lies in `against.NAME`, digits
DIFFERENCES: list[tuple[str, tuple[str, ...], int]] = [
    ("sqrt(MSE)", ("rmse_posterior_mean",), 2),
    ("bits/dim", ("bits_per_dim",), 3),
    ("MS-SSIM", ("ms_ssim",), 3),
    ("sharpness", ("sharpness_ratio",), 3),
    (f"kd_{NETWORK}, reconstructions", (f"kd_{NETWORK}", "reconstructions"), 3),
    (f"kd_{NETWORK}, samples", (f"kd_{NETWORK}", "samples"), 3),
]


def _at(tree: dict[str, Any], path: tuple[str, ...]) -> dict[str, float]:
    for key in path:
        tree = tree.get(key, {})
    return tree


def _difference(found: dict[str, float], digits: int) -> str:
    if not found:
        return ""
    text = f"{found['mean']:+.{digits}f}"
    if "ci95_low" in found:
        text += f" ({found['ci95_low']:+.{digits}f} to {found['ci95_high']:+.{digits}f})"
    return text + (f", ratio {found['ratio']:.2f}" if "ratio" in found else "")


def _distance(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{value:.4g}"
    ends = f" ({value['ci95_low']:.4g} to {value['ci95_high']:.4g})" if "ci95_low" in value else ""
    return f"{value['value']:.4g}{ends}"


def unused(metrics: dict[str, Any]) -> list[str]:
    """A sentence a level that has latents it never uses, of every model; one sentence where there is none."""
    found = []
    for name, values in metrics.items():
        for k, level in values["levels"].items():
            if level["unused_latents"]:
                found.append(
                    f"{name}, level {k}: {level['unused_latents']:,} of {level['latents']:,} latents are never used "
                    f"(KL below {UNUSED_NATS:g} nats on average over the photographs measured on)."
                )
            elif is_ignored(level.get("importance_nats", math.nan), level["latents"]):
                found.append(
                    f"{name}, level {k}: the latents carry {level['rate_nats']:.1f} nats, but tell the decoder "
                    f"nothing: with another photograph's, distortion changes by {level['importance_nats']:+.3f} nats."
                )
    return found or [f"No model has a latent that is never used (KL below {UNUSED_NATS:g} nats on average)."]


def rows(metrics: dict[str, Any]) -> list[list[str]]:
    """The heading and one line a model."""
    lines = [["", *(heading for heading, _ in COLUMNS)]]
    for name, values in metrics.items():
        lines.append([name, *(read(values) for _, read in COLUMNS)])
    return lines


def text(metrics: dict[str, Any]) -> str:
    """The table as aligned plain text."""
    lines = rows(metrics)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
