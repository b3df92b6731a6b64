"""Latency and throughput of reconstruction and sampling, batch 1 and 64, with memory.

    python -m bench.model_speed [--models FOLDER]

--models: the pipeline's `models` folder, for its pyramid and baselines; without it, untrained ones of the same default
sizes at 64 px. Latency: median seconds of one call. Memory: of the GPU's allocator, or what the process has grown to;
without a GPU each line is a process of its own, since a process's peak cannot be set back.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.limits import Counted, Limits, wait
from bench.results import keep, table
from bench.trainables import PLAIN, baseline_of, level_of, noise_images, pyramid_of
from lapcvae.models.cascade import Cascade
from lapcvae.models.storage import load_cascade
from lapcvae.training.result import peak_memory_bytes


def untrained(folder: Path) -> dict[str, Cascade]:
    """The default pyramid at 64 px and the plain VAE, without training."""
    cpu = torch.device("cpu")
    stored, _ = pyramid_of(noise_images(64, 64), folder)
    vector: dict[str, Any] = {"latent": "vector", "latent_size": 128}
    levels = [level_of(stored, folder, k, cpu, blocks=1, **(vector if k == 3 else {})).level for k in (1, 2, 3)]
    return {
        "lapcvae": Cascade(levels).eval(),
        "vae": Cascade([baseline_of(stored, folder, cpu, **PLAIN | {"width": 16}).level]).eval(),
    }


def trained(folder: Path) -> dict[str, Cascade]:
    """What the pipeline left."""
    levels = sorted(folder.glob("level*"), key=lambda path: int(path.name[5:]))
    others = sorted(path.parent for path in folder.glob("*/model.json") if not path.parent.name.startswith("level"))
    return {"lapcvae": load_cascade(levels), **{path.name: load_cascade([path]) for path in others}}


def seconds(work: Callable[[], object], device: torch.device, calls: int) -> float:
    """Median of a call, after a few to warm up."""
    taken = []
    for i in range(calls + 3):
        start = time.perf_counter()
        work()
        wait(device)
        if i >= 3:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def known_models(models: Path | None) -> dict[str, Cascade]:
    """By name."""
    with tempfile.TemporaryDirectory() as folder:
        return trained(models) if models else untrained(Path(folder, "pyramid"))


def case(model: Cascade, what: str, batch: int, calls: int) -> list[float]:
    """Time one model at one thing: its side, seconds, memory before, what it grew by, and what its limit is made of."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device)
    side = model.level(1).side
    noise = torch.Generator(device).manual_seed(0)
    x = torch.rand(batch, 3, side, side, device=device)
    work = {"reconstruct": lambda: model.reconstruct(x), "sample": lambda: model.sample(batch, noise)}[what]
    before = peak_memory_bytes(device)
    with torch.no_grad():
        taken = seconds(work, device, calls)
        grown, limits = peak_memory_bytes(device) - before, Limits.measured(device)
        with Counted(limits) as counted:
            work()
    return [side, taken, before, grown, counted.floor_s, counted.operations, counted.bytes]


def main() -> None:
    """Measure every model at everything, each peak of memory for itself."""
    parser = argparse.ArgumentParser(description="speed of reconstruction and sampling")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--case", nargs=3, metavar=("MODEL", "WHAT", "BATCH"))
    arguments = parser.parse_args()
    gpu = torch.cuda.is_available()
    # Without a GPU this process stays small: those it starts would begin with its peak for theirs.
    models = known_models(arguments.models) if gpu or arguments.case else {}
    if arguments.case:
        name, what, batch = arguments.case
        print(json.dumps(case(models[name], what, int(batch), arguments.calls) if name else list(models)))
        return

    def found(*wanted: str) -> list[Any]:
        if gpu:
            torch.cuda.reset_peak_memory_stats()
            return case(models[wanted[0]], wanted[1], int(wanted[2]), arguments.calls)
        command = [sys.executable, "-m", "bench.model_speed", "--calls", str(arguments.calls), "--case", *wanted]
        command += ["--models", str(arguments.models)] if arguments.models else []
        return list(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))

    out: list[list[object]] = []
    for name in models or found("", "", "1"):
        for batch in (1, 64):
            for what in ("reconstruct", "sample"):
                side, taken, before, grown, floor, operations, read = found(name, what, str(batch))
                out.append([
                    name, side, what, batch, 1000 * taken, batch / taken, before / 2**20, grown / 2**20,
                    operations / batch / 1e9, read / batch / 1e6, f"{floor / taken:.0%}",
                ])  # fmt: skip
    header = ["model", "px", "what", "batch", "latency ms", "images/s", "memory before MiB", "more in the calls MiB"]
    header += ["Gflop an image", "MB an image", "of the limit"]
    keep("model-speed" + "-gpu" * gpu, [
        table(header, out),
        "The limit: every operation at the measured rate of a large matrix product, or of a copy of memory, whichever "
        "takes it longer (bench/limits.py). Memory before: "
        + ("the models on the GPU." if gpu else "the process with PyTorch and the model."),
    ])  # fmt: skip


if __name__ == "__main__":
    main()
