"""The pyramid in both presets beside the published VAE, the matched VAE and VAE/GAN: one data set, one table.

    python -m bench.side_by_side --out FOLDER [--profile lfw64_cpu] [--models modern paper vae vae_matched vae_gan]
                                 [--data data] [--split val] [--set KEY=VALUE ...] [--name lfw64] [--jobs 1]
                                 [--composed FOLDER [--updates N]]

`modern` is the profile's pyramid and `paper` that of the profile with `_paper` behind its name; the others are the
profile's baselines. Each is trained by the pipeline's own stages in a folder of its own under `--out`, from what
`dvc repro pyramid` left in `--data`; what is trained already is not trained again. Then all of them are measured on the
same held-out people. Choose on `val`; measure on `test` once, at the end.

`--composed` is for a box without DVC: a folder of parameters by model, as bench/pack.py leaves them; `--updates` then
says how many there are of each level and baseline. A model whose training fails is left out, and the exit code is 1.

Writes metrics.json into `--out`; and, where a name is given, into bench/results: the tables, sheets of reconstructions
and of samples, and the curves.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from bench.results import RESULTS, keep, table
from bench.trained import OURS, TOP, place, settings_of, train
from lapcvae.config import parse, read_params
from lapcvae.data.batches import PackedImages
from lapcvae.evaluation import sheets
from lapcvae.evaluation import table as tables
from lapcvae.evaluation.evaluate import EvaluationConfig
from lapcvae.evaluation.intervals import Against
from lapcvae.evaluation.measured import Measured, measure_all
from lapcvae.evaluation.networks import open_network
from lapcvae.evaluation.people import People, names_of
from lapcvae.evaluation.pictures import PictureMeasures
from lapcvae.evaluation.trained import level_folders, open_model, training_cost
from lapcvae.io.atomic import write_json
from lapcvae.models.cascade import Cascade, run_level
from lapcvae.models.level import Coarser
from lapcvae.pyramid.laplacian import gaussian_pyramid
from lapcvae.pyramid.stored import read_pyramid

PYRAMIDS = ("modern", "paper")
MODELS = (*PYRAMIDS, "vae", "vae_matched", "vae_gan")
# ours, the other, the most that sqrt(MSE) may be of the other's at 64 and at 128 px
TARGETS = (
    ("paper", "vae", {64: 0.90, 128: 0.99}),
    ("modern", "vae", {64: 0.55, 128: 0.60}),
    ("modern", "vae_matched", {64: 0.80, 128: 0.80}),
)


def people_of(data: Path, split: str, device: torch.device) -> People:
    """The split's people. Those who choose are measured by themselves: test people are not looked at for it.

    Without training people: what is near to a training photograph is the pipeline's own report to say.
    """
    _, rows = read_pyramid(data / "pyramid")
    photographs = PackedImages(data / "pyramid" / "x1.npy", device)
    calibration = rows["val"] if split == "test" else rows["val"][:0]
    names = names_of(data / "aligned" / "manifest.csv", photographs.count)
    return People(photographs, rows[split], calibration, rows["train"][:0], names)


def tera_flops(model: Cascade, people: People, images: int) -> float:
    """Floating-point operations of a training of so many images a level, 10^12: forward and backward of one batch."""
    rows = people.test[:8]
    x = people.photographs.gather(rows, np.zeros_like(rows))
    pyramid = gaussian_pyramid(x, model.depth, model.kind)
    noise = torch.Generator(x.device).manual_seed(0)
    with FlopCounterMode(display=False) as counter:
        coarser: Coarser | None = None
        for k in range(model.depth, 0, -1):
            level = model.level(k)
            done = run_level(level, pyramid[k - 1], coarser, model.kind, noise)
            (done.error.square().mean() + done.kl().mean()).backward()
            # What a level trains on is stored: no gradient goes on to the coarser one.
            coarser = Coarser(done.rebuilt.detach(), done.mean.detach(), float(level.log_sigma), done.z.detach())
    model.zero_grad()
    return float(counter.get_total_flops() / len(rows) * images / 1e12)


def ratios(found: dict[str, Measured], names: np.ndarray, side: int) -> list[list[object]]:
    """Each target beside what was found, with the interval of the paired difference over people."""
    out: list[list[object]] = []
    for ours, other, most in TARGETS:
        if ours in found and other in found:
            differences = Against(found[ours].images, found[other].images, names).differences()
            d = differences["rmse_posterior_mean"]
            paired = f"{d['mean']:+.2f} ({d['ci95_low']:+.2f} to {d['ci95_high']:+.2f})"
            out.append([f"{ours} / {other}", f"{d['ratio']:.3f}", most.get(side, ""), paired])
    return out


def budget_rows(found: dict[str, Measured]) -> list[list[object]]:
    """Of each level: its rate, what stopping there would cost, and what is left of the final error in its band."""
    return [
        [
            name, f"{v['side_px']} px", f"{v['rate_nats']:.0f}", f"{v['sigma_255']:.2f}",
            f"{v['rmse_if_stopped_here']:.2f}", f"{v['rmse_left_in_band']:.2f}",
        ]
        for name, m in found.items() for v in m.metrics["levels"].values()
    ]  # fmt: skip


@contextmanager
def drawing_from_the_prior(model: Cascade) -> Iterator[None]:
    """Every level's `draw` is `prior` meanwhile."""
    levels = [model.level(k) for k in range(1, model.depth + 1)]
    kept = [level.settings for level in levels]
    for level in levels:
        level.settings = replace(level.settings, draw="prior")
    yield
    for level, settings in zip(levels, kept, strict=True):
        level.settings = settings


def draw_rows(models: dict[str, Cascade], found: dict[str, Measured], sets: PictureMeasures) -> list[list[object]]:
    """What samples gain by the fitted draw: their distance to photographs and their sharpness, by either."""
    out: list[list[object]] = []
    for name, model in models.items():
        if model.level(1).settings.draw == "fitted":
            with drawing_from_the_prior(model):
                by_prior = sets.measure(model).metrics
            for draw, metrics in (("fitted", found[name].metrics), ("prior", by_prior)):
                distances = [f"{m['samples']['value']:.4f}" for key, m in metrics.items() if key.startswith("kd_")]
                out.append([name, draw, *(distances or ["-"]), f"{metrics['samples']['sharpness_ratio']:.2f}"])
    return out


def curves(folders: dict[str, list[Path]]) -> Iterator[tuple[str, list[float], list[float]]]:
    """Held-out loss against images seen, a curve a level."""
    for name, levels in folders.items():
        for level in levels:
            with (level / "curve.csv").open(encoding="utf-8", newline="") as stream:
                rows = list(csv.DictReader(stream))
            label = name if len(levels) == 1 else f"{name}, {level.name}"
            yield label, [float(r["images_seen"]) for r in rows], [float(r["val_loss_nats"]) for r in rows]


def draw(folders: dict[str, list[Path]], path: Path) -> None:
    """The curves as SVG; the first, steep part is cut off above."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    lows, highs = [], []
    for label, x, y in curves(folders):
        axes.plot(x, y, label=label)
        lows.append(min(y))
        highs.append(y[min(len(y) - 1, len(y) // 10)])
    axes.set_ylim(min(lows) - 300, max(highs))
    axes.set_xlabel("images seen")
    axes.set_ylabel("held-out loss of the level, nats")
    axes.legend(fontsize="small")
    with mpl.rc_context({"svg.hashsalt": "lapcvae", "svg.fonttype": "path"}):
        figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Train, measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m bench.side_by_side", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder the models are trained in")
    parser.add_argument("--profile", default="lfw64_cpu", help="of profiles/")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--data", type=Path, default=TOP / "data", help="folder with `pyramid` and `aligned` in it")
    parser.add_argument("--split", choices=("val", "test"), default="val", help="whose people are measured on")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="parameters over the profile's")
    parser.add_argument("--name", help="of the results in bench/results; nothing is kept there without it")
    parser.add_argument("--jobs", type=int, default=1, help="models trained at a time")
    parser.add_argument("--composed", type=Path, help="folder of parameters by model, in place of --profile and --set")
    parser.add_argument("--updates", type=int, help="of each level and baseline, in place of those composed")
    parser.add_argument("--device", help="to measure on: cpu or cuda; by default a GPU where there is one")
    given = parser.parse_args()
    settings: dict[str, dict[str, Any]] = {}
    for name in given.models:
        if given.composed:
            settings[name] = composed(given.composed / f"{name}.yaml", given.updates)
        else:
            settings[name] = settings_of(given.profile + "_paper" * (name == "paper"), given.set)
    kinds = {name: OURS if name in PYRAMIDS else name for name in given.models}

    def trained(name: str) -> bool:
        try:
            train(given.out / name, kinds[name], settings[name], given.data)
        except subprocess.CalledProcessError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            return False
        return True

    with ThreadPoolExecutor(given.jobs) as pool:
        done = list(pool.map(trained, given.models))
    kinds = {name: kinds[name] for name, whole in zip(given.models, done, strict=True) if whole}
    if not kinds:
        sys.exit(1)

    first = next(iter(kinds))
    params = settings[first]
    device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.backends.cudnn.allow_tf32 = False  # three digits, too few for what is compared here
    people, network = people_of(given.data, given.split, device), open_network(device)
    places = {name: place(given.out / name, kind) for name, kind in kinds.items()}
    models = {name: open_model(folder).to(device) for name, folder in places.items()}
    folders = {name: level_folders(folder) for name, folder in places.items()}
    config = parse(EvaluationConfig, params["evaluation"], "evaluation")
    found = measure_all(models, people, network, config, params["seed"])
    metrics = {name: {**m.metrics, "training": training_cost(folders[name])} for name, m in found.items()}
    write_json(given.out / "metrics.json", metrics)

    side = people.photographs.side
    sets = PictureMeasures(people, network, config.distance_images, config.batch, params["seed"])
    work = [
        [name, f"{tera_flops(model, people, metrics[name]['training']['images_seen'] // model.depth):.1f}"]
        for name, model in models.items()
    ]
    parts = [
        f"{given.split} people: {metrics[first]['photographs']} photographs of "
        f"{metrics[first]['people']}; updates and seconds are of all levels together",
        table(*_split(tables.rows(metrics))),
        table(["", "training, 10^12 floating-point operations, without a discriminator's"], work),
        table(["sqrt(MSE)", "ratio", "at most", "difference, 95 % interval over people"],
              ratios(found, people.names[people.test], side)),
        "Energy of each band over the photographs':",
        table(*_split(tables.band_rows(metrics))),
        table(*_split(tables.distance_rows(metrics) or [["feature distances: network not installed"]])),
        table(["samples", "draw", "kernel distance", "sharpness"], draw_rows(models, found, sets)),
        table(*_split(tables.difference_rows(metrics) or [[""]])),
        table(["", "level", "rate nats", "sigma", "sqrt(MSE) if stopped here", "left in its band"], budget_rows(found)),
    ]  # fmt: skip
    rows = people.test[np.linspace(0, len(people.test) - 1, 10).astype(int)]
    pictures = {
        "reconstructions": sheets.comparison(models, people.photographs, rows),
        "samples": np.concatenate([sheets.samples(m, 10, 1.0, params["seed"]) for m in models.values()]),
        "samples-cool": np.concatenate(
            [sheets.samples(m, 10, config.finer_temperature, params["seed"]) for m in models.values()]
        ),
    }
    parts.append(f"Rows of the sheets: (photographs, then) {', '.join(models)}; cool: finer levels' noise halved.")
    target = RESULTS / f"{date.today():%Y-%m-%d}-{given.name}" if given.name else given.out / "sheet"
    for title, picture in pictures.items():
        # JPEG: a sheet is to be looked at, and small.
        cv2.imwrite(f"{target}-{title}.jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    draw(folders, Path(f"{target}-curves.svg"))
    if given.name:
        keep(given.name, parts)
    else:
        print("\n\n".join(parts))
    sys.exit(not all(done))


def composed(path: Path, updates: int | None) -> dict[str, Any]:
    """The parameters in a file, each level and baseline with so many updates where that is said."""
    params = read_params(path)
    for entry in (*params["levels"].values(), *params["baselines"].values()):
        entry["updates"] = updates or entry["updates"]
    return params


def _split(lines: list[list[str]]) -> tuple[list[str], list[list[object]]]:
    return lines[0], [list(line) for line in lines[1:]]


if __name__ == "__main__":
    main()
