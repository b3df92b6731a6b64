"""Rate against distortion: what each nat buys, for the pyramid and for the matched VAE.

    python -m bench.rate_distortion --out FOLDER [--axis kl_weight] [--values 0.5 1 2 4] [--updates-share 1]
                                    [--models lapcvae vae_matched] [--split val] [--jobs 1]
                                    [--profile NAME] [--set KEY=VALUE ...] [--data data]

Trains every model at every value and measures it on held-out people. `kl_weight` multiplies lambda_k of every level (1
is the evidence bound); `latent_size` multiplies how many latents a level has. Everything else is as in params.yaml, or
as a profile has it, and each point runs the pipeline's own training stages in a folder of its own, from the pyramid
that `dvc repro pyramid` left in `--data`. Points already in the folder are not trained again. Choose on `val`; measure
on `test` once, at the end.

Writes rate_distortion.json (a row a point, and the difference at equal rates) and rate_distortion.svg.
"""

from __future__ import annotations

import argparse
import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from bench.trained import OURS, TOP, place, settings_of, train
from lapcvae.data.batches import PackedImages
from lapcvae.evaluation.evaluate import evaluate
from lapcvae.evaluation.people import names_of
from lapcvae.evaluation.trained import level_folders, open_model, training_cost
from lapcvae.io.atomic import write_json
from lapcvae.pyramid.stored import read_pyramid

AXES = ("kl_weight", "latent_size")


def varied(params: dict[str, Any], axis: str, value: float, updates_share: float) -> dict[str, Any]:
    """The parameters of one point."""
    params = copy.deepcopy(params)
    shared = params["model"]
    for job in [*params["levels"].values(), *params["baselines"].values()]:
        own = job.setdefault("model", {})
        known = own.get(axis, shared.get(axis, 1.0 if axis == "kl_weight" else None))
        if known is None:
            raise SystemExit("params.yaml: every level and baseline needs a `latent_size` of its own to be multiplied")
        own[axis] = float(known) * value if axis == "kl_weight" else max(1, round(known * value))
        job["updates"] = max(1, round(job["updates"] * updates_share))
    return params


def measure(folder: Path, model: str, split: str, params: dict[str, Any], data: Path) -> dict[str, float]:
    """Rate and distortion of one trained point on held-out people."""
    _, rows = read_pyramid(data / "pyramid")
    photographs = PackedImages(data / "pyramid" / "x1.npy", torch.device("cpu"))
    names = names_of(data / "aligned" / "manifest.csv", photographs.count)[rows[split]]
    batch, seed, trained = params["evaluation"]["batch"], params["seed"], place(folder, model)
    found = evaluate(open_model(trained), photographs, rows[split], rows["val"], batch, seed, names).metrics
    error, cost = found["rmse_posterior_mean"], training_cost(level_folders(trained))
    return {
        "rate_nats": found["rate_nats"],
        "rmse_255": error["mean"],
        "rmse_255_ci95_low": error.get("ci95_low", error["mean"]),
        "rmse_255_ci95_high": error.get("ci95_high", error["mean"]),
        "bits_per_dim": found["bits_per_dim"]["mean"],
        "latents": found["latents"],
        "parameters": found["parameters"],
        "updates": cost["updates"],
        "seconds": cost["seconds"],
    }


def at_equal_rates(rows: list[dict[str, Any]], ours: str, other: str, count: int = 5) -> list[dict[str, float]]:
    """sqrt(MSE) of both at `count` rates that both curves cover, linear between points; empty where none is common."""
    curves = {}
    for model in (ours, other):
        points = sorted((row["rate_nats"], row["rmse_255"]) for row in rows if row["model"] == model)
        curves[model] = np.array(points).T if points else np.empty((2, 0))
    if min(curve.shape[1] for curve in curves.values()) < 2:
        return []
    low, high = max(c[0, 0] for c in curves.values()), min(c[0, -1] for c in curves.values())
    if low >= high:
        return []
    rates = np.linspace(low, high, count)
    mine, theirs = (np.interp(rates, *curves[model]) for model in (ours, other))
    return [
        {"rate_nats": float(r), ours: float(a), other: float(b), "ratio": float(a / b)}
        for r, a, b in zip(rates, mine, theirs, strict=True)
    ]


def draw(rows: list[dict[str, Any]], axis: str, split: str, path: Path) -> None:
    """The curves as SVG: error, and the bound, against rate."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for position, key, label in ((1, "rmse_255", "sqrt(MSE), 0-255"), (2, "bits_per_dim", "bits/dim, bound")):
        axes = figure.add_subplot(1, 2, position)
        for model in dict.fromkeys(row["model"] for row in rows):
            points = sorted((row for row in rows if row["model"] == model), key=lambda row: row["rate_nats"])
            x, y = [row["rate_nats"] for row in points], [row[key] for row in points]
            axes.plot(x, y, marker="o", label=model)
            if key == "rmse_255":
                low, high = ([row[f"rmse_255_ci95_{end}"] for row in points] for end in ("low", "high"))
                axes.fill_between(x, low, high, alpha=0.2)
            for row, at in zip(points, y, strict=True):
                axes.annotate(f"{row['value']:g}", (row["rate_nats"], at), textcoords="offset points", xytext=(4, 4))
        axes.set_xlabel(f"rate, nats ({split} people; beside each point: times {axis})")
        axes.set_ylabel(label)
        axes.legend()
    with mpl.rc_context({"svg.hashsalt": "lapcvae", "svg.fonttype": "path"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Train, measure, draw."""
    parser = argparse.ArgumentParser(prog="python -m bench.rate_distortion", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the points and the curve")
    parser.add_argument("--axis", choices=AXES, default="kl_weight", help="what is multiplied by each value")
    parser.add_argument("--values", type=float, nargs="+", default=[0.5, 1, 2, 4], help="three or more")
    parser.add_argument("--models", nargs="+", default=[OURS, "vae_matched"], help=f"{OURS}, or baselines' names")
    parser.add_argument("--updates-share", type=float, default=1.0, help="of the updates in params.yaml, 0 to 1")
    parser.add_argument("--split", choices=("val", "test"), default="val", help="whose people are measured on")
    parser.add_argument("--jobs", type=int, default=1, help="points trained at a time")
    parser.add_argument("--profile", help="of profiles/, over params.yaml")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="parameters over these")
    parser.add_argument("--data", type=Path, default=TOP / "data", help="folder with `pyramid` and `aligned` in it")
    given = parser.parse_args()
    params = settings_of(given.profile, given.set)
    points = [(model, value) for value in given.values for model in given.models]

    def folder(model: str, value: float) -> Path:
        own: Path = given.out / f"{given.axis}-{value:g}" / model
        return own

    settings = {value: varied(params, given.axis, value, given.updates_share) for value in given.values}
    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(lambda p: train(folder(*p), p[0], settings[p[1]], given.data), points))
    rows = [{"model": m, "value": v, **measure(folder(m, v), m, given.split, params, given.data)} for m, v in points]
    others = [model for model in given.models if model != OURS]
    found = {
        "axis": given.axis,
        "split": given.split,
        "updates_share": given.updates_share,
        "points": rows,
        "at_equal_rates": {other: at_equal_rates(rows, OURS, other) for other in others if OURS in given.models},
    }
    write_json(given.out / "rate_distortion.json", found)
    draw(rows, given.axis, given.split, given.out / "rate_distortion.svg")
    for row in rows:
        print(
            f"{row['model']:>12}  {given.axis} x {row['value']:<5g} rate {row['rate_nats']:7.0f} nats   "
            f"sqrt(MSE) {row['rmse_255']:6.2f}   {row['bits_per_dim']:.3f} bits/dim   {row['latents']} latents   "
            f"{row['seconds']:.0f} s"
        )
    for other, compared in found["at_equal_rates"].items():
        for row in compared or [{}]:
            print(
                f"against {other} at {row['rate_nats']:.0f} nats: ratio {row['ratio']:.3f}"
                if row
                else f"{other}: no common rate"
            )


if __name__ == "__main__":
    main()
