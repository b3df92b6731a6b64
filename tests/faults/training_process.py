"""A small project that trains in a second or two, and real processes that train in it and can be killed.

Processes are forked from a server that has imported everything, so thirty of them cost seconds and not minutes; each
is its own process, runs what a DVC stage runs, and dies as a stage would.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import torch
import yaml

from lapcvae.io.atomic import sha256_file
from lapcvae.pyramid.laplacian import PyramidConfig
from lapcvae.pyramid.stored import write_pyramid

ROOT = Path(__file__).parents[2]
LEVELS = ("2", "1")


def make_project(folder: Path) -> Path:
    """A project of 32 and 16 px: its parameters and its pyramid, as the stages before training leave them."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["model"] |= {"width": 8, "blocks": 1, "latent_size": 2, "latent_grid": 4}
    params["training"] |= {"batch": 4, "warmup_updates": 2, "log_interval": 3, "checkpoint_interval": 3}
    params["levels"] = {
        "2": {"after": "data/pyramid/pyramid.json", "updates": 40},
        "1": {"after": "data/rebuilt/level2", "updates": 40, "model": {"condition_noise": 0.5}},
    }
    params["baselines"] = {"vae": {"updates": 20, "model": {"network": "plain", "latent": "vector"}}}
    noise = torch.rand(24, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(noise, size=32, mode="bicubic").clamp(0, 1)
    images = (x * 255).byte().permute(0, 2, 3, 1).numpy()
    write_pyramid(images, ["train"] * 16 + ["val"] * 4 + ["test"] * 4, PyramidConfig(), folder / "data/pyramid")
    write_params(folder, params)
    return folder


def write_params(folder: Path, params: dict[str, Any]) -> None:
    """Write params.yaml."""
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def read_params(folder: Path) -> dict[str, Any]:
    """Read params.yaml."""
    tree = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree


def processes() -> ForkServerContext:
    """Where to start processes from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.fit"])
    return context


def start(project: Path, levels: tuple[str, ...] = LEVELS) -> ForkServerProcess:
    """A process that trains the levels that are not finished, as `dvc repro` would."""
    process = processes().Process(target=_train, args=(project, levels))
    process.start()
    return process


def _train(project: Path, levels: tuple[str, ...]) -> None:
    from pipelines.fit import fit
    from pipelines.stage import run_stage

    os.chdir(project)
    said = os.open(project / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    torch.set_num_threads(1)
    for k in levels:
        done = Path("done", k)
        if not done.exists():
            run_stage(f"train@{k}", lambda k=k: fit(f"level{k}", "level", f"levels.{k}", int(k)))
            done.parent.mkdir(exist_ok=True)
            done.touch()


def left(project: Path, levels: tuple[str, ...] = LEVELS) -> dict[str, str]:
    """Digest of everything training leaves that must not depend on how often it was stopped."""
    files = [
        *(project / f"models/level{k}/{name}" for k in levels for name in ("weights.safetensors", "model.json")),
        *(project / f"models/level{k}/{name}" for k in levels for name in ("metrics.json", "curve.csv")),
        *(project / f"data/rebuilt/level{k}/level.json" for k in levels),
        # Nothing trains on level 1.
        *(
            project / f"data/rebuilt/level{k}/{name}.npy"
            for k in levels
            if k != "1"
            for name in ("image", "mean", "posterior")
        ),
    ]
    return {str(file.relative_to(project)): sha256_file(file) for file in files}
