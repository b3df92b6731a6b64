"""A trained model by the folder it lies in."""

from __future__ import annotations

from pathlib import Path

from lapcvae.errors import ModelError
from lapcvae.io.atomic import read_json
from lapcvae.models.cascade import Cascade
from lapcvae.models.storage import DESCRIPTION, load_cascade, read_description


def level_folders(folder: Path) -> list[Path]:
    """The folders of levels 1 ... K of a model: one level's own folder, or one with `level1`, `level2` ... in it.

    Raises `ModelError` where there is neither.
    """
    if (folder / DESCRIPTION).is_file():
        return [folder]
    first = folder / "level1"
    if not (first / DESCRIPTION).is_file():
        raise ModelError(
            f"{folder}: holds no model: neither {DESCRIPTION} nor level1/{DESCRIPTION}; name a folder such as models "
            "or models/vae, or a registered model such as models:/lapcvae@champion"
        )
    return [folder / f"level{k}" for k in range(1, read_description(first).depth + 1)]


def open_model(folder: Path) -> Cascade:
    """The model in a folder, on the processor, ready to use. Raises `ModelError`."""
    return load_cascade(level_folders(folder))


def training_cost(folders: list[Path]) -> dict[str, float]:
    """What training all levels of a model took: updates, images and seconds added up, the largest memory.

    Empty where the records of training do not lie beside the weights, as for a registered model.
    """
    if not all((folder / name).is_file() for folder in folders for name in ("run.json", "metrics.json")):
        return {}
    runs = [read_json(folder / "run.json") for folder in folders]
    last = [read_json(folder / "metrics.json") for folder in folders]
    return {
        "updates": sum(row["update"] for row in last),
        "images_seen": sum(row["images_seen"] for row in last),
        "seconds": sum(run["seconds"] for run in runs),
        "peak_memory_bytes": max(run["peak_memory_bytes"] for run in runs),
    }
