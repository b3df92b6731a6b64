"""Stage `evaluate`: every trained model measured on people it has not seen; metrics, sheets and the report."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from lapcvae.config import load
from lapcvae.data.batches import PackedImages
from lapcvae.evaluation import report, sheets
from lapcvae.evaluation.evaluate import Evaluation, EvaluationConfig, evaluate
from lapcvae.io.atomic import atomic_folder, read_json, write_json, write_text
from lapcvae.models.cascade import Cascade
from lapcvae.models.storage import load_cascade, read_description
from lapcvae.pyramid.stored import read_pyramid
from pipelines.stage import run_stage

PYRAMID, MODELS, REPORTS = Path("data/pyramid"), Path("models"), Path("reports")


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
    models: dict[str, Cascade] = {}
    done: dict[str, Evaluation] = {}
    for name, folders in parts.items():
        models[name] = load_cascade([MODELS / folder for folder in folders]).to(device)
        done[name] = evaluate(models[name], photographs, rows["test"], rows["val"], config.batch, seed)
        done[name].metrics["training"] = _training(records[name])
    metrics = {name: evaluation.metrics for name, evaluation in done.items()}
    pyramid = models["lapcvae"]
    pictures = {
        "comparison": sheets.comparison(models, photographs, rows["test"]),
        "coarse_to_fine": sheets.coarse_to_fine(pyramid, photographs, rows["test"]),
        "samples": sheets.samples(pyramid, config.samples, 1.0, seed),
        "samples_cool": sheets.samples(pyramid, config.samples, config.finer_temperature, seed),
    }
    curves = {folder: _curve(MODELS / folder / "curve.csv") for folders in records.values() for folder in folders}
    built = [folder for folders in parts.values() for folder in folders]
    resolved = {folder: asdict(read_description(MODELS / folder).settings) for folder in built}
    settings = {"text": yaml.safe_dump(resolved, sort_keys=True), "finer_temperature": config.finer_temperature}
    data = {"photographs": stored.photographs, "summary": read_json(REPORTS / "validation.json")["summary"]}
    with atomic_folder(REPORTS / "sheets") as folder:
        for name, picture in pictures.items():
            (folder / f"{name}.png").write_bytes(report.png(picture))
    _write_images(done, REPORTS / "per_image.csv")
    write_text(REPORTS / "index.html", report.render(metrics, curves, pictures, data, settings))
    write_json(REPORTS / "metrics.json", metrics)
    best = metrics["lapcvae"]
    return (
        f"lapcvae {best['rmse_posterior_mean']['mean']:.2f} of 255, {best['bits_per_dim']['mean']:.3f} bits/dim on "
        f"{stored.photographs['test']} unseen people's photographs"
    )


def _training(folders: list[str]) -> dict[str, float]:
    """What training all parts of a model took: updates, images and seconds added up, the largest memory."""
    runs = [read_json(MODELS / folder / "run.json") for folder in folders]
    last = [read_json(MODELS / folder / "metrics.json") for folder in folders]
    return {
        "updates": sum(row["update"] for row in last),
        "images_seen": sum(row["images_seen"] for row in last),
        "seconds": sum(run["seconds"] for run in runs),
        "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
    }


def _curve(path: Path) -> list[dict[str, float]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def _write_images(done: dict[str, Evaluation], path: Path) -> None:
    """One line a model and test photograph, for paired comparisons."""
    lines: list[str] = []
    for name, evaluation in done.items():
        columns = list(evaluation.images)
        lines = lines or [",".join(["model", "photograph", *columns])]
        for i, values in enumerate(zip(*evaluation.images.values(), strict=True)):
            lines.append(",".join([name, str(i), *(f"{value:.6g}" for value in values)]))
    write_text(path, "\n".join(lines) + "\n")


if __name__ == "__main__":
    run_stage("evaluate", work)
