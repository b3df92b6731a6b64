"""Training all levels together, from what greedy training left in models/level1 ... levelK.

models/NAME/levels/ gets level1 ... levelK, each a level of its own; models/NAME/ metrics.json, curve.csv and run.json.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from lapcvae.config import load, parse
from lapcvae.data.batches import PackedImages
from lapcvae.io.atomic import atomic_folder
from lapcvae.models.storage import WEIGHTS, load_cascade, read_description, save_level
from lapcvae.pyramid.stored import read_pyramid
from lapcvae.registry import tracking
from lapcvae.training.arrays import LevelArrays
from lapcvae.training.checkpoint import Checkpoints
from lapcvae.training.draws import fit_draws_together
from lapcvae.training.end_to_end import EndToEnd, calibrate
from lapcvae.training.loop import train
from lapcvae.training.processes import these_processes
from lapcvae.training.scratch import digests, key_of, measured, scratch_folder
from lapcvae.training.settings import TrainingSettings
from pipelines.records import sweep, write_records

MODELS, PYRAMID = Path("models"), Path("data/pyramid")


@dataclass(frozen=True)
class TogetherJob:
    """One entry of `end_to_end` in params.yaml.

    updates: optimiser steps. image_weight: of the image-space bound beside the sum of L_k. training: keys that override
    the shared section of that name.
    """

    updates: int
    image_weight: float = 1.0
    training: dict[str, Any] = field(default_factory=dict)


def fit_together(name: str, key: str) -> str:
    """Train, write models/NAME, and return the status line; key: the entry in params.yaml, such as `end_to_end.tuned`.

    Raises `ConfigError`, `DataError`, `ModelError`, `StorageError`, `TrainingError`.
    """
    stored, rows = read_pyramid(PYRAMID)
    job, seed = load(TogetherJob, key), load(int, "seed")
    merged = {**load(dict[str, Any], "training"), **job.training, "updates": job.updates}
    settings = parse(TrainingSettings, merged, key)
    processes = these_processes()
    if processes.device.type == "cpu":
        torch.set_deterministic_debug_mode("error")
    else:
        torch.backends.cudnn.benchmark = True
    folders = [MODELS / f"level{k}" for k in range(1, stored.depth + 1)]
    cascade = load_cascade(folders)
    own = PYRAMID / "x1.npy"
    arrays = LevelArrays(PackedImages(own, processes.device))
    trainable = EndToEnd(cascade, arrays, job.image_weight)
    if not processes.first:
        train(trainable, rows, settings, seed, processes, name, choices=measured())
        processes.close()
        return f"process {processes.rank} of {processes.count}"
    inputs = digests([own, *(folder / WEIGHTS for folder in folders)])
    resolved = {"end_to_end": {"image_weight": job.image_weight}, "training": asdict(settings), "seed": seed}
    scratch_key = key_of({**resolved, "name": name}, inputs)
    with (
        scratch_folder(name, scratch_key) as scratch,
        tracking.child_run(name, "end_to_end", resolved, data_digest=stored.data_digest) as run,
    ):
        sweep(name)
        result = train(
            trainable, rows, settings, seed, processes, name, Checkpoints(scratch, scratch_key),
            lambda row: run.log(int(row["update"]), row), measured(), run.settle,
        )  # fmt: skip
        processes.close()
        calibrate(cascade, arrays, rows["train"], seed)
        fit_draws_together(cascade, arrays, rows["train"])
        with atomic_folder(MODELS / name) as folder:
            for k, greedy in enumerate(folders, 1):
                save_level(cascade.level(k), read_description(greedy), folder / f"levels/level{k}")
            write_records(folder, result, run.record_id, inputs)
            run.artifact(folder, "model")
    last = result.curve[-1]
    return (
        f"{settings.updates} updates in {result.precision}, {result.images_per_second:.0f} images/s, "
        f"{result.peak_memory_bytes / 2**30:.2f} GiB; rate {last['rate_nats']:.0f} nats, image-space sigma "
        f"{255 * last['sigma']:.2f} of 255, held-out bound {last['val_loss_nats']:.0f} nats"
    )
