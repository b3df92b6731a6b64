"""bf16 against fp32, and what `precision: auto` chooses here: is its choice the faster one on this machine?

python -m bench.precision [--updates 30]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from bench.results import keep, table
from bench.trainables import images_per_second, level_of, noise_images, pyramid_of
from lapcvae.training.precision import use_bf16
from lapcvae.training.settings import TrainingSettings


def main() -> None:
    """Measure levels 1 and 3 of 64 px in both, in turns; the best of two."""
    parser = argparse.ArgumentParser(description="bf16 against fp32")
    parser.add_argument("--updates", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    every = max(1, arguments.updates // 3)
    out: list[list[object]] = []
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
    chosen = "bf16" if use_bf16("auto", device) else "fp32"
    keep("precision", "python -m bench.precision", [
        f"`precision: auto` chooses {chosen} here.",
        table(["level", "precision", "images/s", "of fp32"], out),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
