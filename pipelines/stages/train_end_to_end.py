"""Stage `train_end_to_end@name`: all levels trained on together from their greedy weights."""

from __future__ import annotations

import sys

from lapcvae.registry.scribe import head_start
from pipelines.launch import join_processes
from pipelines.stage import run_stage

if __name__ == "__main__":
    join_processes("pipelines.stages.train_end_to_end")
    head_start()  # before PyTorch is imported

from pipelines.fit_together import fit_together

if __name__ == "__main__":
    name = sys.argv[1]
    run_stage(f"train_end_to_end@{name}", lambda: fit_together(name, f"end_to_end.{name}"))
