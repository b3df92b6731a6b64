"""bf16 against fp32, and what `precision: auto` chooses here: is its choice the faster one on this machine?

    python -m bench.precision [--updates 30]

`auto` is asked by a training of its own, long enough to be worth measuring, that is stopped once it has chosen.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from bench.results import keep, table
from bench.trainables import images_per_second, level_of, noise_images, pyramid_of
from lapcvae.training.loop import train
from lapcvae.training.precision import WORTH_UPDATES
from lapcvae.training.processes import Processes
from lapcvae.training.settings import TrainingSettings
from lapcvae.training.trainable import LevelTraining


class _ChosenError(Exception):
    """Ends a training whose choice is made."""


def chosen(trainable: LevelTraining, rows: dict[str, np.ndarray], batch: int, device: torch.device, kept: Path) -> str:
    """What `precision: auto` chooses for this training, and by how much bf16 was faster where it measured."""

    def end(row: dict[str, float]) -> None:
        raise _ChosenError

    settings = TrainingSettings(updates=WORTH_UPDATES, batch=batch, log_interval=1)
    with suppress(_ChosenError):
        train(
            trainable,
            {**rows, "val": rows["val"][:0]},
            settings,
            0,
            Processes(device),
            "auto",
            on_log=end,
            choices=kept,
        )
    if not kept.exists():
        return "bf16, as the GPU multiplies it natively" if torch.cuda.is_bf16_supported(False) else "fp32"
    (found,) = json.loads(kept.read_text()).values()
    return f"{'bf16' if found['bf16'] else 'fp32'}, having found bf16 {found['speedup']:.2f} times as fast"


def main() -> None:
    """Measure levels 1 and 3 of 64 px in both, in turns; the best of two."""
    parser = argparse.ArgumentParser(description="bf16 against fp32")
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    every = max(1, arguments.updates // 3)
    out: list[list[object]] = []
    choices: list[str] = []
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top, "pyramid")
        stored, rows = pyramid_of(noise_images(1024, 64), folder)
        for k in (1, 3):
            rates = {"fp32": 0.0, "bf16": 0.0}
            for _ in range(2):
                for precision, best in rates.items():
                    settings = TrainingSettings(
                        updates=arguments.updates,
                        batch=arguments.batch,
                        log_interval=every,
                        precision=precision,  # type: ignore[arg-type]
                    )
                    trainable = level_of(stored, folder, k, device, blocks=1)
                    rates[precision] = max(best, images_per_second(trainable, rows, settings, device))
            out += [[k, name, rate, rate / rates["fp32"]] for name, rate in rates.items()]
            trainable = level_of(stored, folder, k, device, blocks=1)
            choice = chosen(trainable, rows, arguments.batch, device, Path(top, f"choice{k}.json"))
            choices.append(f"Level {k}: `precision: auto` chooses {choice}.")
    keep("precision", [*choices, table(["level", "precision", "images/s", "of fp32"], out)])


if __name__ == "__main__":
    main()
