"""align: data/raw and data/landmarks -> data/aligned, the accepted faces and a manifest row for every photograph."""

from __future__ import annotations

import gc
from pathlib import Path

from lapcvae.data.executor import ExecutorConfig, head_start

if __name__ == "__main__":
    head_start("lapcvae.data.align")
    # Thousands of rows are in hand at once. Looking through them for cycles, time and again, takes a twentieth of the
    # time when all photographs are known, though what has been imported is left out of it (see `run_stage`).
    gc.set_threshold(100_000)

from lapcvae.config import load
from lapcvae.data.align import AlignInputs, align
from lapcvae.data.decode import DecodeConfig
from lapcvae.data.duplicates import DuplicatesConfig
from lapcvae.data.judge import AlignConfig
from lapcvae.data.split import SplitConfig
from pipelines.stage import run_stage


def work() -> str:
    """Run the stage; returns its status line."""
    counts = align(
        AlignInputs(Path("data/raw"), Path("data/landmarks/landmarks.csv"), source=load(str, "source.kind")),
        out=Path("data/aligned"),
        cache=Path(".cache/align"),
        config=load(AlignConfig, "align"),
        decode_config=load(DecodeConfig, "decode"),
        split=load(SplitConfig, "split"),
        duplicates=load(DuplicatesConfig, "duplicates"),
        executor=load(ExecutorConfig, "executor"),
    )
    accepted = counts.pop("accepted", 0)
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    return f"{accepted} accepted, {counts.total()} rejected" + (f" ({reasons})" if reasons else "")


if __name__ == "__main__":
    run_stage("align", work)
