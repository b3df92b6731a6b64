"""Curves and bars as SVG text, the same bytes for the same numbers."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

Curve = list[dict[str, float]]


def curves(named: dict[str, Curve]) -> str:
    """Loss on training and held-out people, and rate, of every trained model against images seen. SVG."""
    figure = Figure(figsize=(10, 2.6 * ((len(named) + 2) // 3)), layout="constrained")
    rows = (len(named) + 2) // 3
    for i, (name, curve) in enumerate(named.items(), 1):
        axes = figure.add_subplot(rows, 3, i)
        seen = [row["images_seen"] / 1000 for row in curve]
        axes.plot(seen, [row["loss_nats"] for row in curve], label="training")
        axes.plot(seen, [row["val_loss_nats"] for row in curve], label="held out", linestyle="--")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("thousand images seen", fontsize=8)
        axes.set_ylabel("loss, nats an image", fontsize=8)
        axes.tick_params(labelsize=8)
        # The first points are far off and would flatten the rest.
        tail = sorted(row["loss_nats"] for row in curve)
        span = tail[int(0.9 * (len(tail) - 1))] - tail[0] or 1.0
        axes.set_ylim(tail[0] - 0.1 * span, tail[0] + 1.3 * span)
        rate = axes.twinx()
        rate.plot(seen, [row["rate_nats"] for row in curve], color="tab:green", linewidth=0.8, label="rate (right)")
        rate.tick_params(labelsize=8, colors="tab:green")
        if i == 1:
            handles = [*axes.get_lines(), *rate.get_lines()]
            axes.legend(handles, [str(line.get_label()) for line in handles], fontsize=7)
    return _svg(figure)


def error_budget(levels: dict[str, dict[str, Any]]) -> str:
    """The pyramid's error a level: at its own size, if one stopped there, and left in its band. SVG."""
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    axes = figure.add_subplot()
    names = sorted(levels, key=int, reverse=True)
    for offset, (key, label) in enumerate(
        [
            ("rmse_own_size", "of x~_k against x_k"),
            ("rmse_if_stopped_here", "of x~_k enlarged against the photograph"),
            ("rmse_left_in_band", "left in band k of the final image"),
        ]
    ):
        at = [i + 0.27 * (offset - 1) for i in range(len(names))]
        bars = axes.bar(at, [levels[k][key] for k in names], width=0.25, label=label)
        axes.bar_label(bars, fmt="%.1f", fontsize=8)
    axes.set_xticks(range(len(names)), [f"level {k} ({levels[k]['side_px']} px)" for k in names])
    axes.set_ylabel("root of the mean MSE, 0-255", fontsize=8)
    axes.margins(y=0.15)
    axes.legend(fontsize=8)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "lapcvae", "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
