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
    ("bits/dim", lambda m: f"{m['bits_per_dim']['mean']:.3f}"),
    ("rate nats", lambda m: f"{m['rate_nats']:.0f}"),
    ("latents", lambda m: f"{m['latents']:,} ({m['active_units']:,} active)"),
    ("parameters", lambda m: f"{m['parameters'] / 1e6:.2f} M"),
    ("updates", lambda m: f"{m['training']['updates']:,}"),
    ("seconds", lambda m: f"{m['training']['seconds']:.0f}"),
]


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
