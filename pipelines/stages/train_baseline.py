"""Stage `train_baseline@name`: a plain VAE of the whole image, a pyramid of one level."""

from __future__ import annotations

import sys

from pipelines.fit import fit
from pipelines.stage import join_processes, run_stage

if __name__ == "__main__":
    join_processes("pipelines.stages.train_baseline")
    name = sys.argv[1]
    run_stage(f"train_baseline@{name}", lambda: fit(name, "baseline", f"baselines.{name}", None))
