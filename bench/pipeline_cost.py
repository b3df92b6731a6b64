"""What the pipeline adds to training: start of a stage, MLflow, checkpoints, DVC.

    python -m bench.pipeline_cost

A stage of one update is run, in a small project of its own, as DVC runs it: its seconds are those of starting,
importing, reading, tracking and writing. The parts are timed in processes of their own. Aim: under 3 s a stage, and
under 2 % of a training of ten minutes. A first stage also makes the MLflow database, which is told apart.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from bench.results import keep, table
from bench.trainables import noise_images, pyramid_of

ROOT = Path(__file__).parents[1]
TEN_MINUTES = 600.0
PARTS = {
    "python": "pass",
    "import torch": "import torch",
    "import of the stage (torch included)": "import pipelines.stages.train",
    "import mlflow": "import mlflow; from mlflow import MlflowClient",
}


def timed(command: list[str], folder: Path) -> float:
    """Seconds of a command that must succeed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command}: {done.stderr}")
    return time.perf_counter() - start


def main() -> None:
    """Time whole stages, then their parts."""
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        pyramid_of(noise_images(256, 64), folder / "data/pyramid")
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        params["levels"]["3"]["updates"] = 1
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        stage = [sys.executable, "-m", "pipelines.stages.train", "3"]
        first = timed(stage, folder)
        again = min(timed(stage, folder) for _ in range(3))
        params["levels"]["3"]["updates"] = 101
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        rows: list[list[object]] = [
            ["a stage of one update", again, again / TEN_MINUTES],
            ["the same, making the MLflow database first", first, first / TEN_MINUTES],
        ]
        for name, code in PARTS.items():
            taken = min(timed([sys.executable, "-c", code], folder) for _ in range(3))
            rows.append([f"- of it: {name}", taken, taken / TEN_MINUTES])
        (folder / "dvc.yaml").write_text("stages:\n  nothing: {cmd: 'true'}\n", encoding="utf-8")
        dvc = [sys.executable, "-m", "dvc"]
        timed([*dvc, "init", "-q", "--no-scm"], folder)
        taken = min(timed([*dvc, "repro", "-f", "-q"], folder) for _ in range(3))
        rows.append(["dvc repro of one stage that does nothing", taken, taken / TEN_MINUTES])
    keep("pipeline-cost", "python -m bench.pipeline_cost", [
        table(["what", "seconds", "share of ten minutes"], rows)
    ])  # fmt: skip


if __name__ == "__main__":
    main()
