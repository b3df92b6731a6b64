"""Cost as work grows: images a second and memory at 1, 10 and 100 times the data, at 64, 128 and 256 px.

    python -m bench.scaling [--photographs 200] [--updates 18] [--sides 64]

Each case is a process of its own, so that its peak memory is its own: one writes the pyramid of that many photographs,
as the `pyramid` stage does, and one trains level 1 of the default networks on it for a few updates. The disk holds
about 14 bytes a pixel of them. Where there is a GPU, only training is measured, and in this process, since the peak of
the GPU's memory can be set back.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from bench.results import keep, table
from bench.trainables import images_per_second, level_of, noise_images, pyramid_of
from lapcvae.pyramid.stored import read_pyramid
from lapcvae.training.result import peak_memory_bytes
from lapcvae.training.settings import TrainingSettings


class OwnMemory:
    """A context that watches this process's own memory, without the pages of mapped files: the system may drop them."""

    def __init__(self) -> None:
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> OwnMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            status = Path("/proc/self/status").read_text()
            self.peak = max(self.peak, 1024 * int(status.split("RssAnon:")[1].split()[0]))


def write(folder: Path, side: int, count: int) -> None:
    """Write the pyramid of `count` photographs and print images a second and the peak memory as JSON.

    The photographs lie in a mapped file, as the `align` stage leaves them.
    """
    some = noise_images(min(count, 256), side)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, (count, side, side, 3))
    for first in range(0, count, len(some)):
        images[first : first + len(some)] = some[: count - first]
    images.flush()
    pyramid_of(some[:2], folder / "pyramid")  # the loops are compiled, or loaded
    del images, some
    with OwnMemory() as memory:
        start = time.perf_counter()
        pyramid_of(np.load(folder / "images.npy", mmap_mode="r"), folder / "pyramid")
        rate = count / (time.perf_counter() - start)
    (folder / "images.npy").unlink()
    print(json.dumps([rate, memory.peak]))


def case(folder: Path, updates: int) -> list[float]:
    """Train on a pyramid: the rate and the peak memory."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stored, rows = read_pyramid(folder / "pyramid")
    settings = TrainingSettings(updates=updates, batch=16, log_interval=updates // 3, checkpoint_interval=updates)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with OwnMemory() as memory:
        rate = images_per_second(level_of(stored, folder / "pyramid", 1, device, blocks=1), rows, settings, device)
    return [rate, peak_memory_bytes(device) if device.type == "cuda" else memory.peak]


def main() -> None:
    """Make each pyramid, train on it, remove it."""
    parser = argparse.ArgumentParser(description="cost as data and images grow")
    parser.add_argument("--photographs", type=int, default=200)
    parser.add_argument("--updates", type=int, default=18)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--sides", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--case", nargs=4, metavar=("WHAT", "FOLDER", "SIDE", "COUNT"))
    arguments = parser.parse_args()
    if arguments.case:
        what, folder, side, count = arguments.case
        if what == "write":
            write(Path(folder), int(side), int(count))
        else:
            print(json.dumps(case(Path(folder), arguments.updates)))
        return
    gpu = torch.cuda.is_available()

    def found(what: str, folder: str, side: int, count: int) -> list[float]:
        if gpu and what == "write":
            pyramid_of(noise_images(count, side), Path(folder, "pyramid"))
            return []
        if gpu:
            return case(Path(folder), arguments.updates)
        command = [sys.executable, "-m", "bench.scaling", "--case", what, folder, str(side), str(count)]
        command += ["--updates", str(arguments.updates)]
        return list(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))

    out: list[list[object]] = []
    for side in arguments.sides:
        first: list[float] = []
        for times in arguments.times:
            count = times * arguments.photographs
            with tempfile.TemporaryDirectory() as folder:
                line = [*found("write", folder, side, count), *found("train", folder, side, count)]
            first = first or line
            out.append([side, count])
            for value, base, unit in zip(line, first, (1, 2**20) * (len(line) // 2), strict=True):
                out[-1] += [value / unit, value / base]
            show(out, arguments.sides, arguments.photographs)


def show(out: list[list[object]], sides: list[int], photographs: int) -> None:
    """Keep what was found so far."""
    gpu = torch.cuda.is_available()
    header = ["px", "photographs", *([] if gpu else ["pyramid/s", "ratio", "peak MiB", "ratio"])]
    header += ["training images/s", "ratio", "peak MiB", "ratio"]
    keep("scaling" + "-gpu" * gpu + "".join(f"-{side}" for side in sides), [
        table(header, out),
        f"Ratios are to {photographs} photographs of the same side. Memory is the process's own (the GPU's "
        "where there is one), without the pages of mapped files, which the system takes back where it needs them.",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
