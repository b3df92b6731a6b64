"""reports/index.html: one page with everything in it, readable without a network."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from lapcvae.evaluation import figures, table

TEMPLATE = Path(__file__).with_name("report.html")


def png(picture: np.ndarray) -> bytes:
    """An H W 3 uint8 picture as PNG bytes."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def render(
    metrics: dict[str, Any],
    curves: dict[str, figures.Curve],
    pictures: dict[str, np.ndarray],
    data: dict[str, Any],
    settings: dict[str, Any],
) -> str:
    """The page as text.

    metrics: a section a model, as in reports/metrics.json. curves: a model's curve. pictures: sheets by name
    (`comparison`, `coarse_to_fine`, `samples`, `samples_cool`; of `nearest`, `partial`, `edited` and `interpolated`
    those there are). data: what validation counted. settings: `text`, the resolved settings of all models,
    `finer_temperature`, and `notes` on what could not be measured.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    encoded = {
        name: "data:image/png;base64," + base64.b64encode(png(picture)).decode() for name, picture in pictures.items()
    }
    return template.render(
        table=table.rows(metrics),
        differences=table.difference_rows(metrics),
        distances=table.distance_rows(metrics),
        bands=table.band_rows(metrics),
        unused=table.unused(metrics),
        models=list(metrics),
        lapcvae=metrics["lapcvae"],
        levels=sorted(metrics["lapcvae"]["levels"], key=int, reverse=True),
        curves_svg=figures.curves(curves),
        budget_svg=figures.error_budget(metrics["lapcvae"]["levels"]),
        pictures=encoded,
        data=data,
        settings=settings,
    )
