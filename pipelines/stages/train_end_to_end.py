"""Stage `train_end_to_end@name`: all levels trained on together from their greedy weights."""

from __future__ import annotations

import sys

from pipelines.fit_together import fit_together
from pipelines.stage import join_processes, run_stage

if __name__ == "__main__":
    join_processes("pipelines.stages.train_end_to_end")
    name = sys.argv[1]
    run_stage(f"train_end_to_end@{name}", lambda: fit_together(name, f"end_to_end.{name}"))
