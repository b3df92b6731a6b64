"""`lapcvae evaluate`: trained models measured on any photographs, prepared as the pipeline prepares its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lapcvae.config import load
from lapcvae.data.batches import PackedImages
from lapcvae.data.manifest import read_manifest
from lapcvae.data.prepare import prepare
from lapcvae.errors import DataError, ModelError
from lapcvae.evaluation.evaluate import EvaluationConfig
from lapcvae.evaluation.measured import measure_all
from lapcvae.evaluation.networks import ABSENT, open_network
from lapcvae.evaluation.people import People, names_of
from lapcvae.evaluation.trained import level_folders, training_cost
from lapcvae.models.cascade import Cascade
from lapcvae.models.storage import load_cascade
from lapcvae.training.result import peak_memory_bytes

Identity = Literal["folder", "none"]
Whom = Literal["all", "test"]


def evaluate_photographs(
    models: dict[str, Path], source: Path, work: Path, params: Path, identity: Identity = "folder", whom: Whom = "all"
) -> dict[str, Any]:
    """Everything that is measured of some models, by name, on the photographs of a folder or archive.

    models: folders; the first stands against the others. work: where photographs are prepared, see `prepare`.
    whom: `test` takes the people whom the split of `params` sets aside for testing; the bound's s is then calibrated
    on its validation people, and nearest neighbours are looked for among its training people. `all` takes everyone,
    and calibrates on them too: a model that was trained on some of them looks better than it is.
    Returns `models` (a section each, as in reports/metrics.json, with `cost`), `photographs` (the account of every
    file), `whom` and `notes` on what could not be measured.
    Raises `ModelError`, `SourceError`, or `DataError` where no photograph is left.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folders = {name: level_folders(folder) for name, folder in models.items()}
    opened = {name: load_cascade(levels).to(device) for name, levels in folders.items()}
    sides = {name: model.level(1).side for name, model in opened.items()}
    if len(set(sides.values())) > 1:
        listed = ", ".join(f"{name} {side} px" for name, side in sides.items())
        raise ModelError(f"models of different sizes cannot be compared on the same photographs: {listed}")
    config, seed = load(EvaluationConfig, "evaluation", params), load(int, "seed", params)
    account = prepare(source, work, params, identity, next(iter(sides.values())))
    people = _people(work / "aligned", whom, device)
    network = open_network(device)
    measured = measure_all(opened, people, network, config, seed)
    sections = {
        name: {
            **found.metrics,
            "cost": _cost(opened[name], people, config.batch),
            **({"training": cost} if (cost := training_cost(folders[name])) else {}),
        }
        for name, found in measured.items()
    }
    notes = [] if network is not None else [ABSENT]
    if network is not None and not any(key.startswith("kd_") for key in next(iter(sections.values()))):
        notes.append("feature distances are absent: they need two sets of two photographs of different people each")
    return {"models": sections, "photographs": account, "whom": whom, "notes": notes}


def _people(aligned: Path, whom: Whom, device: torch.device) -> People:
    photographs = PackedImages(aligned / "images.npy", device)
    names = names_of(aligned / "manifest.csv", photographs.count)
    rows = [row for row in read_manifest(aligned / "manifest.csv") if row.status == "accepted"]
    splits = np.array([row.split for row in sorted(rows, key=lambda row: row.row)])
    if whom == "all":
        none = np.array([], dtype=np.int64)
        test, calibration, training = np.arange(photographs.count), none, none
    else:
        test, calibration, training = (np.flatnonzero(splits == split) for split in ("test", "val", "train"))
    if len(test) == 0:
        raise DataError(
            f"{aligned}/manifest.csv: no photograph is left to measure on, of {photographs.count} accepted; add some, "
            "or take everyone's with --whom all"
        )
    return People(photographs, test, calibration, training, names)


def _cost(model: Cascade, people: People, batch: int) -> dict[str, float]:
    """Milliseconds a face, a full batch at a time, the quickest of three; the process's largest memory so far."""
    rows = np.resize(people.test, batch)
    x = people.photographs.gather(rows, np.zeros_like(rows))
    noise = torch.Generator()
    device = x.device

    def milliseconds(work: Any) -> float:
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken.append(time.perf_counter() - start)
        return 1000 * min(taken) / batch

    return {
        "reconstruct_ms": milliseconds(lambda: model.reconstruct(x)),
        "sample_ms": milliseconds(lambda: model.sample(batch, noise)),
        "batch": batch,
        "peak_memory_bytes": peak_memory_bytes(device),
    }
