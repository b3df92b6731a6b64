"""Latency and throughput of reconstruction and sampling, batch 1 and 64, with memory.

    python -m bench.model_speed [--models FOLDER]

--models: the pipeline's `models` folder, for its pyramid and baselines; without it, untrained ones of the same default
sizes at 64 px. Latency: median seconds of one call. Memory: of the GPU's allocator, or what the process has grown to.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from bench.results import keep, table
from bench.trainables import PLAIN, baseline_of, level_of, noise_images, pyramid_of
from lapcvae.models.cascade import Cascade
from lapcvae.models.storage import load_cascade
from lapcvae.training.result import peak_memory_bytes


def untrained(folder: Path) -> dict[str, Cascade]:
    """The default pyramid at 64 px and the plain VAE, without training."""
    cpu = torch.device("cpu")
    stored, _ = pyramid_of(noise_images(64, 64), folder)
    vector = {"latent": "vector", "latent_size": 128}
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
        if device.type == "cuda":
            torch.cuda.synchronize()
        if i >= 3:
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    """Measure every model."""
    parser = argparse.ArgumentParser(description="speed of reconstruction and sampling")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--calls", type=int, default=20)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    out: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        models = trained(arguments.models) if arguments.models else untrained(Path(folder, "pyramid"))
        for name, model in models.items():
            model.to(device)
            side = model.level(1).side
            noise = torch.Generator(device).manual_seed(0)
            for batch in (1, 64):
                x = torch.rand(batch, 3, side, side, device=device)
                for what, work in {
                    "reconstruct": lambda model=model, x=x: model.reconstruct(x),
                    "sample": lambda model=model, batch=batch, noise=noise: model.sample(batch, noise),
                }.items():
                    taken = seconds(work, device, arguments.calls)
                    memory = peak_memory_bytes(device) / 2**20
                    out.append([name, side, what, batch, 1000 * taken, batch / taken, memory])
    header = ["model", "px", "what", "batch", "latency ms", "images/s", "peak memory MiB"]
    keep("model-speed", "python -m bench.model_speed", [table(header, out)])


if __name__ == "__main__":
    main()
