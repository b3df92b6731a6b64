"""Models trained by the pipeline's own stages, each in a folder of its own, from one prepared data set."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from lapcvae.config import read_params
from lapcvae.io.atomic import write_text

TOP = Path(__file__).parents[1]
OURS = "lapcvae"


def settings_of(profile: str | None, changes: list[str]) -> dict[str, Any]:
    """params.yaml, with a profile over it where one is named, and single keys over both, such as `training.batch=16`.

    Composed as `dvc exp run -S +profiles=NAME -S KEY=VALUE` does.
    """
    wanted = [*([f"+profiles={profile}"] if profile else []), *changes]
    if not wanted:
        return read_params(TOP / "params.yaml")
    from dvc.utils.hydra import compose_and_dump  # a box that trains settings composed elsewhere has no DVC

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        compose_and_dump(path, str(TOP), None, "params", str(TOP), wanted)
        return read_params(path)


def train(folder: Path, model: str, params: dict[str, Any], data: Path) -> None:
    """Train `OURS` (every level) or a baseline of `params` in `folder`, unless that was done with the same parameters.

    data: the pipeline's `data` folder, as `dvc repro pyramid` leaves it. One that was stopped goes on. Raises
    `subprocess.CalledProcessError` where a stage fails.
    """
    wanted = yaml.safe_dump(params, sort_keys=True)
    if (folder / "done").is_file() and (folder / "params.yaml").read_text(encoding="utf-8") == wanted:
        return
    (folder / "done").unlink(missing_ok=True)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    if not (folder / "data" / "pyramid").exists():
        (folder / "data" / "pyramid").symlink_to((data / "pyramid").resolve())
    write_text(folder / "params.yaml", wanted)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TOP / "src"), str(TOP)]),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder.resolve()}/mlflow.db",
    }
    if model == OURS:
        stages = [["pipelines.stages.train", str(k)] for k in range(len(params["levels"]), 0, -1)]
    else:
        stages = [["pipelines.stages.train_baseline", model]]
    for stage in stages:
        subprocess.run([sys.executable, "-m", *stage], cwd=folder, env=environment, check=True)
    (folder / "done").touch()


def place(folder: Path, model: str) -> Path:
    """Where `train` left the model, for `open_model`."""
    return folder / "models" if model == OURS else folder / "models" / model
