"""What training level 1 costs with coarser levels present, and without: the ratio should be within 5 % of 1.

    python -m bench.level_cost [--updates 60]

`without`: the finest of two levels (64, 32 px), whose coarser images come from a level that was never trained.
`with`: the finest of four (64, 32, 16, 8 px), each of which stands, with its rebuilt images, beside it. A level reads
two arrays and runs its own networks; a coarser network is never loaded, so both should cost the same. A composed
cascade, which would run every coarser level for each batch, is measured too, to show what is saved.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from bench.limits import wait
from bench.results import keep, table
from bench.trainables import level_of, noise_images, pyramid_of
from bench.trainables import rates as rates_of
from lapcvae.models.cascade import Cascade
from lapcvae.pyramid.laplacian import PyramidConfig
from lapcvae.pyramid.stored import read_pyramid, write_pyramid
from lapcvae.training.rebuild import write_rebuilt
from lapcvae.training.settings import TrainingSettings


def main() -> None:
    """Measure in turns; medians."""
    parser = argparse.ArgumentParser(description="cost of level 1 with and without coarser levels")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    count = arguments.updates
    settings = TrainingSettings(
        updates=count,
        batch=64,
        log_interval=max(1, count // 3),
        checkpoint_interval=count,
        precision="bf16" if device.type == "cuda" else "fp32",
    )
    images = noise_images(1024, 64)
    rates: dict[str, list[tuple[float, float]]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as top:
        pyramid_of(images, Path(top, "whole"))
        for name, coarsest in (("without", 32), ("with", 8)):
            splits = ["train"] * 960 + ["val"] * 64
            write_pyramid(images, splits, PyramidConfig(coarsest=coarsest), Path(top, name))
        # The coarser levels run, and leave what level 1 reads, as the pipeline has it.
        stored, rows = read_pyramid(Path(top, "with"))
        levels = [level_of(stored, Path(top, "with"), k, device, blocks=1, latent_grid=4) for k in range(1, 5)]
        for k in (4, 3, 2):
            folder = Path(top, f"rebuilt{k}")
            folder.mkdir()
            write_rebuilt(levels[k - 1].level.to(device).eval(), levels[k - 1].arrays, "burt", folder)
        for turn in range(-1, arguments.turns):  # one turn to warm up; who is first changes from turn to turn
            for name in sorted(rates, reverse=turn % 2 == 0):
                stored, rows = read_pyramid(Path(top, name))
                trainable = level_of(stored, Path(top, name), 1, device, blocks=1)
                found = rates_of(trainable, rows, settings, device)
                rates[name] += [found] * (turn >= 0)
        cascade = Cascade([trainable.level for trainable in levels]).to(device).eval()
        x = levels[0].arrays.images.gather(rows["train"][:64], rows["train"][:64] * 0)
        cascade.reconstruct(x)
        wait(device)
        start = time.perf_counter()
        for _ in range(5):
            cascade.reconstruct(x)
        wait(device)
        composed = 5 * 64 / (time.perf_counter() - start)
    out: list[list[object]] = []
    for i, clock in enumerate(("by the clock", "of processor time")):
        ratios = [there[i] / none[i] for none, there in zip(rates["without"], rates["with"], strict=True)]
        medians = [statistics.median(found[i] for found in rates[name]) for name in ("without", "with")]
        out.append([clock, *medians, statistics.median(ratios), min(ratios), max(ratios)])
    whole = statistics.median(found[0] for found in rates["with"])
    keep("level-cost" + "-gpu" * (device.type == "cuda"), [
        table(["images a second", "without coarser levels", "with them", "ratio, median", "lowest", "highest"], out),
        f"One pass of the composed cascade, without gradients, runs at {composed:,.0f} images/s. It would come on top "
        f"of each update if levels were trained by running the coarser ones: {1 / (1 + whole / composed):.2f} of the "
        "speed.",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
