"""What `make repro` ends with: the short table, and where to look next."""

from __future__ import annotations

from pathlib import Path

from lapcvae.evaluation import table
from lapcvae.io.atomic import read_json
from pipelines.stage import run_stage

METRICS = Path("reports/metrics.json")


def work() -> str:
    print(table.text(read_json(METRICS)))
    print("\nsqrt(MSE) on 0-255, at the posterior mean, on people not seen in training")
    print("  report      reports/index.html")
    print("  runs        make ui, then the address it prints")
    print("  next        change params.yaml, `dvc repro`, `dvc metrics diff`")
    return "done"


if __name__ == "__main__":
    run_stage("summary", work)
