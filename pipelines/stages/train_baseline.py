"""Stage `train_baseline@name`: a plain VAE of the whole image, a pyramid of one level."""

from __future__ import annotations

import sys

from lapcvae.registry.scribe import head_start
from pipelines.launch import join_processes
from pipelines.stage import run_stage

if __name__ == "__main__":
    join_processes("pipelines.stages.train_baseline")
    head_start()  # before PyTorch is imported

from pipelines.fit import fit

if __name__ == "__main__":
    name = sys.argv[1]
    run_stage(f"train_baseline@{name}", lambda: fit(name, "baseline", f"baselines.{name}", None))
