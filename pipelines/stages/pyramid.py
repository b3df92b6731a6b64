"""Stage `pyramid`: aligned faces -> packed level arrays and their statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lapcvae.config import load
from lapcvae.data.manifest import read_texts
from lapcvae.pyramid.laplacian import PyramidConfig
from lapcvae.pyramid.stored import write_pyramid
from pipelines.stage import run_stage


def work() -> str:
    images = np.load("data/aligned/images.npy", mmap_mode="r", allow_pickle=False)
    rows = read_texts(Path("data/aligned/manifest.csv"), "status", "split")
    splits = [split for status, split in rows if status == "accepted"]
    stored = write_pyramid(images, splits, load(PyramidConfig, "pyramid"), Path("data/pyramid"), Path(".cache/pyramid"))
    counts = ", ".join(f"{count} {name}" for name, count in stored.photographs.items())
    return f"{' > '.join(map(str, stored.sides))} px; {counts}"


if __name__ == "__main__":
    run_stage("pyramid", work)
