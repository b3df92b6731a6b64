"""Cost as work grows: images a second and memory at 1, 10 and 100 times the data, at 64, 128 and 256 px.

    python -m bench.scaling [--photographs 300] [--updates 12]

Each case is a process of its own, so that its peak memory is its own. Level 1 of the default networks is trained for a
few updates, with the pyramid of that many photographs on the disk; the disk holds about 14 bytes a pixel of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from bench.results import keep, table
from bench.trainables import images_per_second, level_of, noise_images, pyramid_of
from lapcvae.pyramid.stored import read_pyramid
from lapcvae.training.result import peak_memory_bytes
from lapcvae.training.settings import TrainingSettings


def case(folder: Path, updates: int) -> None:
    """Train on a pyramid and print the rate and the peak memory as JSON."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stored, rows = read_pyramid(folder)
    settings = TrainingSettings(updates=updates, batch=16, log_interval=updates // 3, checkpoint_interval=updates)
    rate = images_per_second(level_of(stored, folder, 1, device, blocks=1), rows, settings, device)
    print(json.dumps([rate, peak_memory_bytes(device)]))


def main() -> None:
    """Make each pyramid, train on it in a process of its own, remove it."""
    parser = argparse.ArgumentParser(description="cost as data and images grow")
    parser.add_argument("--photographs", type=int, default=300)
    parser.add_argument("--updates", type=int, default=12)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--case", type=Path)
    arguments = parser.parse_args()
    if arguments.case:
        case(arguments.case, arguments.updates)
        return
    out: list[list[object]] = []
    for side in arguments.sides:
        first: list[float] = []
        for times in arguments.times:
            with tempfile.TemporaryDirectory() as top:
                pyramid_of(noise_images(times * arguments.photographs, side), Path(top, "pyramid"))
                command = [sys.executable, "-m", "bench.scaling", "--case", str(Path(top, "pyramid"))]
                command += ["--updates", str(arguments.updates)]
                found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            first = first or found
            (rate, memory), count = found, times * arguments.photographs
            out.append([side, count, rate, rate / first[0], memory / 2**20, memory / first[1]])
    header = ["px", "photographs", "images/s", "ratio", "peak memory MiB", "ratio"]
    keep("scaling", "python -m bench.scaling", [table(header, out)])


if __name__ == "__main__":
    main()
