"""Trains small things in as many processes as torchrun started, and writes their curves and weights to a folder.

torchrun --nproc-per-node 2 -m tests.training.two_processes FOLDER

At the end the spatial style is trained once more, is asked to stop amid it, and goes on: `stopped.safetensors`.
"""

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lapcvae.errors import StoppedError
from lapcvae.training.checkpoint import Checkpoints
from lapcvae.training.loop import train
from lapcvae.training.processes import Processes, these_processes
from lapcvae.training.trainable import LevelTraining
from tests.training.made import STYLES, Small, Toy, make_small


def main(folder: Path) -> None:
    """Train each style and the one of two parts; the first process writes STYLE.json and STYLE.safetensors."""
    torch.set_num_threads(1)
    processes = these_processes()
    small = make_small(folder / f"data-{processes.rank}")
    for style in [*STYLES, "two parts"]:
        trainable = Toy(small.arrays(2)) if style == "two parts" else small.trainable(2, **STYLES[style])
        result = train(trainable, small.rows, small.training, 0, processes, style)
        if processes.first:
            (folder / f"{style}.json").write_text(json.dumps(result.curve))
            save_file({k: v.contiguous() for k, v in trainable.state_dict().items()}, folder / f"{style}.safetensors")
    stop_and_go_on(folder, small, processes)
    processes.close()


def stop_and_go_on(folder: Path, small: Small, processes: Processes) -> None:
    """Only the first process is sent a signal, and only it has checkpoints; both must stop, and both go on."""
    kept = folder / "checkpoints"
    kept.mkdir(exist_ok=True)
    settings = dataclasses.replace(small.training, checkpoint_interval=10)

    def stop(row: dict[str, float]) -> None:
        if row["update"] == 20:
            os.kill(os.getpid(), signal.SIGTERM)

    def attempt(on_log: Callable[[dict[str, float]], None]) -> LevelTraining:
        trainable = small.trainable(2)
        checkpoints = Checkpoints(kept, "x") if processes.first else None
        train(trainable, small.rows, settings, 0, processes, "stopped", checkpoints, on_log)
        return trainable

    with pytest.raises(StoppedError, match="after update 20"):
        attempt(stop)
    trainable = attempt(lambda row: None)
    if processes.first:
        save_file({k: v.contiguous() for k, v in trainable.state_dict().items()}, folder / "stopped.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
