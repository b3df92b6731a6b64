"""Stage `evaluate`: every trained model measured on people it has not seen; metrics, sheets and the report."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from lapcvae.config import load
from lapcvae.data.batches import PackedImages
from lapcvae.editing import showcase
from lapcvae.evaluation import report, sheets
from lapcvae.evaluation.evaluate import EvaluationConfig
from lapcvae.evaluation.measured import measure_all
from lapcvae.evaluation.networks import ABSENT, open_network
from lapcvae.evaluation.people import People, names_of
from lapcvae.evaluation.trained import training_cost
from lapcvae.io.atomic import atomic_folder, atomic_path, read_json, write_json, write_text
from lapcvae.models.cascade import Cascade
from lapcvae.models.storage import load_cascade, read_description
from lapcvae.pyramid.stored import read_pyramid
from pipelines.stage import run_stage

PYRAMID, MODELS, REPORTS = Path("data/pyramid"), Path("models"), Path("reports")
MANIFEST = Path("data/aligned/manifest.csv")


def work() -> str:
    stored, rows = read_pyramid(PYRAMID)
    config, seed = load(EvaluationConfig, "evaluation"), load(int, "seed")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    photographs = PackedImages(PYRAMID / "x1.npy", device)
    baselines = load(dict[str, Any], "baselines")
    parts = {"lapcvae": [f"level{k}" for k in range(1, stored.depth + 1)], **{name: [name] for name in baselines}}
    # Where training left its records: beside the weights, but for levels that were trained together.
    records = dict(parts)
    for name in load(dict[str, Any], "end_to_end"):
        parts[name] = [f"{name}/levels/level{k}" for k in range(1, stored.depth + 1)]
        records[name] = [name]
    models = {name: load_cascade([MODELS / folder for folder in folders]).to(device) for name, folders in parts.items()}
    people = People(photographs, rows["test"], rows["val"], rows["train"], names_of(MANIFEST, photographs.count))
    network = open_network(device)
    measured = measure_all(models, people, network, config, seed)
    metrics = {
        name: {**m.metrics, "training": training_cost([MODELS / folder for folder in records[name]])}
        for name, m in measured.items()
    }
    pyramid = models["lapcvae"]
    pictures = {
        "comparison": sheets.comparison(models, photographs, rows["test"]),
        "coarse_to_fine": sheets.coarse_to_fine(pyramid, photographs, rows["test"]),
        "samples": sheets.samples(pyramid, config.samples, 1.0, seed),
        "samples_cool": sheets.samples(pyramid, config.samples, config.finer_temperature, seed),
        **_edits(pyramid, people, config.finer_temperature, seed),
    }
    ours = measured["lapcvae"].pictures
    if ours.neighbours is not None:
        pictures["nearest"] = sheets.nearest(ours.samples, ours.neighbours, photographs)
    curves = {folder: _curve(MODELS / folder / "curve.csv") for folders in records.values() for folder in folders}
    built = [folder for folders in parts.values() for folder in folders]
    resolved = {folder: asdict(read_description(MODELS / folder).settings) for folder in built}
    settings = {
        "text": yaml.safe_dump(resolved, sort_keys=True),
        "finer_temperature": config.finer_temperature,
        "notes": [] if network is not None else [ABSENT],
    }
    data = {"photographs": stored.photographs, "summary": read_json(REPORTS / "validation.json")["summary"]}
    with atomic_folder(REPORTS / "sheets") as folder:
        for name, picture in pictures.items():
            (folder / f"{name}.png").write_bytes(report.png(picture))
    _write_images(
        {name: m.images for name, m in measured.items()}, people.names[people.test], REPORTS / "per_image.csv"
    )
    write_text(REPORTS / "index.html", report.render(metrics, curves, pictures, data, settings))
    write_json(REPORTS / "metrics.json", metrics)
    best = metrics["lapcvae"]
    absent = "" if network is not None else "; no feature distances, their network's weights are not installed"
    return (
        f"lapcvae {best['rmse_posterior_mean']['mean']:.2f} of 255, {best['bits_per_dim']['mean']:.3f} bits/dim on "
        f"{stored.photographs['test']} unseen people's photographs{absent}"
    )


def _edits(model: Cascade, people: People, temperature: float, seed: int) -> dict[str, np.ndarray]:
    """What can be done with the first test photographs; of a model of one level, only to go from one to another."""
    faces = people.photographs.gather(people.test[:2], np.zeros_like(people.test[:2])).split(1)
    made = {"interpolated": showcase.interpolated(model, faces[0], faces[-1])}
    if model.depth > 1:
        made["partial"] = showcase.partial_samples(model, faces[0], temperature, seed)
        made["edited"] = showcase.edited(model, faces[0], temperature, seed)
    return made


def _curve(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def _write_images(images: dict[str, dict[str, np.ndarray]], names: np.ndarray, path: Path) -> None:
    """One line a model and test photograph, with the person it shows, for paired comparisons."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        columns = list(next(iter(images.values())))
        lines.writerow(["model", "photograph", "person", *columns])
        for model, values in images.items():
            for i, (name, *row) in enumerate(zip(names, *(values[c] for c in columns), strict=True)):
                lines.writerow([model, i, name, *(f"{value:.6g}" for value in row)])


if __name__ == "__main__":
    run_stage("evaluate", work)
