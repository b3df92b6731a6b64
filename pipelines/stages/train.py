"""Stage `train@k`: level k of the pyramid, trained from its own images and what level k+1 rebuilt."""

from __future__ import annotations

import sys

from lapcvae.registry.scribe import head_start
from pipelines.launch import join_processes
from pipelines.stage import run_stage

if __name__ == "__main__":
    join_processes("pipelines.stages.train")
    head_start()  # before PyTorch is imported

from pipelines.fit import fit

if __name__ == "__main__":
    k = sys.argv[1]
    run_stage(f"train@{k}", lambda: fit(f"level{k}", "level", f"levels.{k}", int(k)))
