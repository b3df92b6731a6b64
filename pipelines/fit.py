"""What the stages that train share: settings, arrays, a tracked run, and the files a trained model leaves.

models/NAME/ holds weights.safetensors, model.json, metrics.json, curve.csv and run.json; data/rebuilt/NAME/ (levels
only) what the next finer level trains on.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lapcvae.config import load, parse
from lapcvae.data.batches import PackedImages
from lapcvae.errors import ConfigError, DataError
from lapcvae.evaluation.grids import level_pictures
from lapcvae.io.atomic import atomic_folder, read_json, sha256_file, write_json, write_text
from lapcvae.models.scale import scale_of
from lapcvae.models.settings import resolve
from lapcvae.models.storage import Description, save_level
from lapcvae.pyramid.stored import StoredPyramid, read_pyramid
from lapcvae.registry import tracking
from lapcvae.training.arrays import LevelArrays
from lapcvae.training.loop import TrainingResult, train
from lapcvae.training.rebuild import calibrate_sigma, write_rebuilt
from lapcvae.training.settings import TrainingSettings

PYRAMID = Path("data/pyramid")


@dataclass(frozen=True)
class Job:
    """One entry of `levels` or `baselines` in params.yaml.

    updates: optimiser steps. model, training: keys that override the shared sections of these names. after: what a
    level waits for: the folder of the coarser level's rebuilt images, or the pyramid itself for the coarsest.
    """

    updates: int
    after: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


def fit(name: str, kind: str, key: str, level: int | None) -> str:
    """Train one model, write its folders, and return the status line.

    key: its entry in params.yaml, such as `levels.2`. level: k, or None for a baseline, which is trained on the whole
    image as a pyramid of one level. Raises `ConfigError`, `DataError`, `StorageError`, `TrainingError`.
    """
    stored, rows = read_pyramid(PYRAMID)
    job = load(Job, key)
    merged = {**load(dict[str, Any], "training"), **job.training, "updates": job.updates}
    settings = parse(TrainingSettings, merged, key)
    seed = load(int, "seed")
    description = _describe(stored, key, job, level)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # On a GPU some of the operations used have no deterministic form, and would be refused.
    if device.type == "cpu":  # the same as use_deterministic_algorithms(True), without its import of the compiler (4 s)
        torch.set_deterministic_debug_mode("error")
    torch.manual_seed(int(np.random.SeedSequence([seed, 3, description.level]).generate_state(1)[0]))
    model = description.build()
    arrays, inputs = _arrays(description.level, description.depth, Path(job.after), device)
    resolved = {"model": asdict(description.settings), "training": asdict(settings), "seed": seed}
    with tracking.child_run(name, kind, resolved, data_digest=stored.data_digest) as run:
        result = train(
            model, arrays, rows, stored.kind, settings, seed, device, name,
            lambda row: run.log(int(row["update"]), row),
        )  # fmt: skip
        calibrate_sigma(model, arrays, rows["train"], stored.kind, seed)
        for title, picture in level_pictures(model, arrays, rows["val"], stored.kind, seed).items():
            run.picture(title, picture)
        if level is not None:
            with atomic_folder(Path("data/rebuilt", name)) as folder:
                write_rebuilt(model, arrays, stored.kind, folder)
        with atomic_folder(Path("models", name)) as folder:
            save_level(model, description, folder)
            write_json(folder / "metrics.json", {k: v for k, v in result.curve[-1].items() if np.isfinite(v)})
            write_text(folder / "curve.csv", _csv(result.curve))
            write_json(folder / "run.json", _record(run.record_id, inputs, result))
            run.artifact(folder, "model")
    last = result.curve[-1]
    return (
        f"{settings.updates} updates, {result.images_per_second:.0f} images/s, "
        f"{result.peak_memory_bytes / 2**30:.2f} GiB; rate {last['rate_nats']:.0f} nats, "
        f"sigma {255 * last['sigma']:.2f} of 255, held-out loss {last['val_loss_nats']:.0f} nats"
    )


def _describe(stored: StoredPyramid, key: str, job: Job, level: int | None) -> Description:
    settings = resolve(load(dict[str, Any], "model"), job.model, f"{key}.model")
    if level is None:
        whole = stored.statistics["1"]
        statistics = {"1": {**whole, "band_std": float(np.sqrt(np.mean(np.square(whole["std"]))))}}
        return Description(1, 1, stored.sides[0], stored.kind, settings, scale_of(statistics, 1, 1))
    levels = load(dict[str, Any], "levels")
    wanted = {str(k) for k in range(1, stored.depth + 1)}
    if set(levels) != wanted:
        raise ConfigError(
            f"params.yaml: `levels` has {', '.join(sorted(levels))}, but a pyramid of "
            f"{', '.join(map(str, stored.sides))} px has levels {', '.join(sorted(wanted))}; add or remove levels, or "
            "change `pyramid.coarsest` or `align.size_px`"
        )
    scale = scale_of(stored.statistics, level, stored.depth)
    return Description(level, stored.depth, stored.sides[level - 1], stored.kind, settings, scale)


def _arrays(level: int, depth: int, after: Path, device: torch.device) -> tuple[LevelArrays, list[Path]]:
    """What a level trains from, and the files read."""
    own = PYRAMID / f"x{level}.npy"
    if level == depth:
        return LevelArrays(PackedImages(own, device)), [own]
    image, mean = after / "image.npy", after / "mean.npy"
    arrays = LevelArrays(
        PackedImages(own, device),
        PackedImages(image, device),
        PackedImages(mean, device),
        float(read_json(after / "level.json")["log_sigma"]),
    )
    if arrays.coarse_image is None or arrays.coarse_image.count != arrays.images.count:
        raise DataError(f"{image}: holds another number of photographs than {own}; run `dvc repro` to make both anew")
    return arrays, [own, image, mean]


def _record(run_id: str, inputs: list[Path], result: TrainingResult) -> dict[str, Any]:
    return {
        "mlflow_run_id": run_id,
        "inputs": {str(path): sha256_file(path) for path in inputs},
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
        "peak_memory_bytes": result.peak_memory_bytes,
    }


def _csv(rows: list[dict[str, float]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
