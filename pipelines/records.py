"""What stages that train leave beside the weights: metrics.json, curve.csv, run.json."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import numpy as np

from lapcvae.io.atomic import write_json, write_text
from lapcvae.training.result import TrainingResult


def write_records(
    folder: Path, result: TrainingResult, run_id: str, inputs: dict[str, str], warm_start: str = ""
) -> None:
    """The last row of the curve with what the guards saw, the curve, and which run made it from what.

    warm_start: whose weights it began with; "" for random ones.
    """
    finite = {k: v for k, v in result.curve[-1].items() if np.isfinite(v)}
    seen = {
        "unused_latents": result.unused_latents,
        "passed_over_updates": result.passed_over,
        "rollbacks": result.rollbacks,
    }
    write_json(folder / "metrics.json", {**finite, **seen})
    stream = io.StringIO()
    writer = csv.DictWriter(stream, result.curve[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(result.curve)
    write_text(folder / "curve.csv", stream.getvalue())
    record = {
        "mlflow_run_id": run_id,
        "inputs": inputs,
        "warm_start": warm_start,
        "precision": result.precision,
        "seconds": result.seconds,
        "images_per_second": result.images_per_second,
        "peak_memory_bytes": result.peak_memory_bytes,
    }
    write_json(folder / "run.json", record)


def sweep(name: str) -> None:
    """Remove what a killed process was in the middle of writing: DVC would take it for a part of the outs."""
    for folder in (Path("models"), Path("data/rebuilt")):
        for left in folder.glob(f".{name}.*.partial"):
            shutil.rmtree(left, ignore_errors=True)
