"""What the stages that train share: settings, arrays, a tracked run, and the files a trained model leaves.

models/NAME/ holds weights.safetensors, model.json, metrics.json, curve.csv and run.json; data/rebuilt/NAME/ (levels
only) what the next finer level trains on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from lapcvae.config import load, parse
from lapcvae.errors import ConfigError
from lapcvae.evaluation.grids import level_pictures
from lapcvae.io.atomic import atomic_folder
from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import half_scale, scale_of
from lapcvae.models.settings import resolve
from lapcvae.models.storage import Description, save_level
from lapcvae.pyramid.filters import PyramidKind
from lapcvae.pyramid.stored import StoredPyramid, read_pyramid
from lapcvae.registry import tracking
from lapcvae.training.arrays import LevelArrays, coarser_latents, open_arrays, prepare_prior
from lapcvae.training.checkpoint import Checkpoints
from lapcvae.training.draws import fit_draws
from lapcvae.training.loop import train
from lapcvae.training.processes import these_processes
from lapcvae.training.rebuild import calibrate_sigma, write_facts, write_rebuilt
from lapcvae.training.scratch import digests, key_of, measured, scratch_folder
from lapcvae.training.settings import TrainingSettings
from lapcvae.training.trainable import LevelTraining, Trainable
from lapcvae.training.vae_gan import FEATURE_WEIGHT, VaeGanTraining
from pipelines.first_weights import put_first_weights
from pipelines.records import sweep, write_records

PYRAMID = Path("data/pyramid")


@dataclass(frozen=True)
class Job:
    """One entry of `levels` or `baselines` in params.yaml.

    updates: optimiser steps. model, training: keys that override the shared sections of these names. after: what a
    level waits for: the folder of the coarser level's rebuilt images, or the pyramid itself for the coarsest.
    warm_start: the folder of a trained model of the same shapes whose weights are the first ones; "" for random ones.
    objective: `bound`, or for baselines `vae_gan` (training/vae_gan.py), where feature_weight is its gamma.
    """

    updates: int
    after: str = ""
    warm_start: str = ""
    objective: Literal["bound", "vae_gan"] = "bound"
    feature_weight: float = FEATURE_WEIGHT
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
    processes = these_processes()
    # On a GPU some of the operations used have no deterministic form, and would be refused.
    if processes.device.type == "cpu":  # use_deterministic_algorithms(True), without its import of the compiler (4 s)
        torch.set_deterministic_debug_mode("error")
    else:
        torch.backends.cudnn.benchmark = True
    torch.manual_seed(int(np.random.SeedSequence([seed, 3, description.level]).generate_state(1)[0]))
    model = description.build()
    data = open_arrays(
        description.level, description.depth, description.settings, PYRAMID, Path(job.after), processes.device
    )
    files = list(data.files)
    begun = put_first_weights(model, name, job.warm_start)
    files += begun.files
    prepare_prior(model, data.training, rows["train"])
    inputs = digests(files)
    resolved = {"model": asdict(description.settings), "training": asdict(settings), "seed": seed}
    trainable = _trainable(job, model, data.training, stored.kind)
    if not processes.first:
        train(trainable, rows, settings, seed, processes, name, choices=measured())
        processes.close()
        return f"process {processes.rank} of {processes.count}"
    key = key_of({**resolved, "description": asdict(description), "name": name}, inputs)
    with (
        scratch_folder(name, key) as scratch,
        tracking.child_run(name, kind, resolved, data_digest=stored.data_digest) as run,
    ):
        sweep(name)
        run.tag("warm_start", begun.origin or "none")
        result = train(
            trainable, rows, settings, seed, processes, name, Checkpoints(scratch, key),
            lambda row: run.log(int(row["update"]), row), measured(), run.settle,
        )  # fmt: skip
        processes.close()
        calibrate_sigma(model, data.composed, rows["train"], stored.kind, seed)
        fit_draws(model, data.composed, rows["train"], stored.kind)
        for title, picture in level_pictures(model, data.composed, rows["val"], stored.kind, seed).items():
            run.picture(title, picture)
        if level is not None:
            with atomic_folder(Path("data/rebuilt", name)) as folder:
                if level > 1:
                    write_rebuilt(model, data.composed, stored.kind, folder, composed=not data.apart)
                else:  # as large as the photographs many times over, and no level follows
                    write_facts(model, folder, composed=not data.apart)
        with atomic_folder(Path("models", name)) as folder:
            save_level(model, description, folder)
            write_records(folder, result, run.record_id, inputs, begun.origin)
            run.artifact(folder, "model")
    last = result.curve[-1]
    return (
        f"{settings.updates} updates in {result.precision}, {result.images_per_second:.0f} images/s, "
        f"{result.peak_memory_bytes / 2**30:.2f} GiB; rate {last['rate_nats']:.0f} nats, "
        f"sigma {255 * last['sigma']:.2f} of 255, held-out loss {last['val_loss_nats']:.0f} nats"
        + (f"; begun with the weights of {begun.origin}" if begun.origin else "")
        + (f"; {result.unused_latents} of {result.latents} latents unused" if result.unused_latents else "")
        + (f"; {result.passed_over} updates passed over, {result.rollbacks} returns" if result.passed_over else "")
    )


def _trainable(job: Job, model: LevelCVAE, arrays: LevelArrays, kind: PyramidKind) -> Trainable:
    if job.objective == "vae_gan":
        return VaeGanTraining(model, arrays, job.feature_weight)
    return LevelTraining(model, arrays, kind)


def _describe(stored: StoredPyramid, key: str, job: Job, level: int | None) -> Description:
    settings = resolve(load(dict[str, Any], "model"), job.model, f"{key}.model")
    if level is None:
        whole = stored.statistics["1"]
        statistics = {"1": {**whole, "band_std": float(np.sqrt(np.mean(np.square(whole["std"]))))}}
        published = settings.network == "published"
        if job.objective == "vae_gan" and not published:
            raise ConfigError(f"params.yaml: `{key}`: `objective: vae_gan` needs `network: published`")
        scale = half_scale() if published else scale_of(statistics, 1, 1)
        return Description(1, 1, stored.sides[0], stored.kind, settings, scale)
    if job.objective != "bound":
        raise ConfigError(f"params.yaml: `{key}.objective`: a level has `bound`; {job.objective} is for baselines")
    levels = load(dict[str, Any], "levels")
    wanted = {str(k) for k in range(1, stored.depth + 1)}
    if set(levels) != wanted:
        raise ConfigError(
            f"params.yaml: `levels` has {', '.join(sorted(levels))}, but a pyramid of "
            f"{', '.join(map(str, stored.sides))} px has levels {', '.join(sorted(wanted))}; add or remove levels, or "
            "change `pyramid.coarsest` or `align.size_px`"
        )
    scale = scale_of(stored.statistics, level, stored.depth, stored.kind)
    latents = coarser_latents(settings, level == stored.depth, Path(job.after))
    return Description(level, stored.depth, stored.sides[level - 1], stored.kind, settings, scale, latents)
