"""The short table: the pyramid beside the plain VAEs, from reports/metrics.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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

_MARKS = {"kd": "kernel", "fd": "Fréchet"}


def distance_rows(metrics: dict[str, Any]) -> list[list[str]]:
    """A table of distances between sets: real people, reconstructions and samples of each model, a feature distance a
    column. Empty where none was measured.
    """
    ours = next(iter(metrics.values()))
    keys = [key for key in ours if key.partition("_")[0] in _MARKS and isinstance(ours[key], dict)]
    if not keys:
        return []
    lines = [["", *(f"{key}, n = {ours[key]['n']}" for key in keys)]]
    lines.append(["other people (floor)", *(f"{ours[key]['floor']:.4g}" for key in keys)])
    for kind in ("reconstructions", "samples"):
        lines += [
            [f"{kind}: {name}", *(_distance(values[key][kind]) for key in keys)] for name, values in metrics.items()
        ]
    return lines


def _distance(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{value:.4g}"
    ends = f" ({value['ci95_low']:.4g} to {value['ci95_high']:.4g})" if "ci95_low" in value else ""
    return f"{value['value']:.4g}{ends}"


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
