"""What the pipeline adds to training: start of a stage, MLflow, checkpoints, DVC.

    python -m bench.pipeline_cost [--updates 60]

`train@3` of the default parameters is run in a small project of its own, with `dvc repro` and by itself, as DVC runs it
(bench/watched_stage.py notes when things happen in it); a point of the curve is logged every update, which is 20 times
as often as the default. Aim: under 3 s from the start of a stage to its first update, and under 2 % of a training of
ten minutes for MLflow and DVC. The least of `--turns`; a first stage also makes the MLflow database, told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

from bench.results import keep, table
from bench.trainables import noise_images, pyramid_of

ROOT = Path(__file__).parents[1]
TEN_MINUTES, LOG_EVERY_S = 600.0, 5.0
FIRST_TENSOR = "import torch, and a first tensor on the GPU"
PARTS = {"python": "pass", "import torch": "import torch", "import of the stage": "import pipelines.stages.train"}
if torch.cuda.is_available():
    PARTS[FIRST_TENSOR] = "import torch; torch.zeros(1, device='cuda')"
MLFLOW = "from lapcvae.registry.store import import_mlflow; import_mlflow()"
STAGE = """
stages:
  train:
    cmd: {python} -m bench.watched_stage 3
    deps: [data/pyramid/x3.npy, data/pyramid/pyramid.json]
    params: [seed, model, training, levels.3]
    outs: [models/level3, data/rebuilt/level3]
"""


def timed(command: list[str], folder: Path) -> float:
    """Seconds of a command that must succeed."""
    start = time.perf_counter()
    printed(command, folder)
    return time.perf_counter() - start


def reached(code: str, folder: Path) -> float:
    """Seconds from the start of Python until `code` has run; ending the process is not counted."""
    began = time.time()
    return float(printed([sys.executable, "-c", f"{code}\nimport time; print(time.time())"], folder)) - began


def printed(command: list[str], folder: Path) -> str:
    """What a command that must succeed prints."""
    places = [str(ROOT), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "DVC_NO_ANALYTICS": "1"}
    # Installed packages come with bytecode or get it at the first import, which images of containers often switch off.
    environment |= {"PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command}: {done.stderr}")
    return done.stdout


def staged(command: list[str], folder: Path) -> dict[str, float]:
    """What bench/watched_stage.py notes of a run, with `whole`: seconds of the command."""
    began = time.time()
    whole = timed(command, folder)
    noted: dict[str, float] = json.loads((folder / "noted.json").read_text())
    start, end = noted.pop("first_update") - began, began + whole - noted.pop("last_update")
    return {"start": start, "end": end, "whole": whole, **noted}


def main() -> None:
    """Time whole stages, then their parts."""
    parser = argparse.ArgumentParser(description="what the pipeline adds to training")
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    turns = range(arguments.turns)
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        pyramid_of(noise_images(1024, 64), folder / "data/pyramid")
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        params["levels"]["3"]["updates"] = arguments.updates
        params["training"] |= {"log_interval": 1, "checkpoint_interval": 20, "precision": "fp32"}
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        stage, dvc = [sys.executable, "-m", "bench.watched_stage", "3"], [sys.executable, "-m", "dvc"]
        for code in (PARTS["import of the stage"], MLFLOW):  # they write their bytecode
            reached(code, folder)
        first = staged(stage, folder)
        alone = [staged(stage, folder) for _ in turns]
        (folder / "dvc.yaml").write_text(STAGE.format(python=sys.executable), encoding="utf-8")
        timed([*dvc, "init", "-q", "--no-scm"], folder)
        under = [staged([*dvc, "repro", "-f", "-q"], folder) for _ in turns]
        codes = {**PARTS, "MLflow": MLFLOW}
        parts = {name: min(reached(code, folder) for _ in turns) for name, code in codes.items()}
    found = {key: min(run[key] for run in alone) for key in first}
    added = min(run["whole"] for run in under) - found["whole"]
    log = found["logging"] / found["logs"]
    loop, importing = TEN_MINUTES / LOG_EVERY_S * log, parts["MLflow"]
    on_gpu = torch.cuda.is_available()
    bare = FIRST_TENSOR if on_gpu else "import torch"  # what any training begins with
    together = found["waited"] + importing + loop + added
    rows: list[list[object]] = [
        ["start of a stage, to its first update", found["start"], ""],
        ["- the same where the MLflow database must be made first", first["start"], ""],
        *([f"- of it: {name}", parts[name], ""] for name in PARTS),
        [f"- more than a bare `{bare}`", found["start"] - parts[bare], ""],
        ["end of a stage, after its last update (sigma, pictures, rebuilt images, weights)", found["end"], ""],
        ["- of it: waiting for MLflow", found["waited"], found["waited"] / TEN_MINUTES],
        ["training waiting for its checkpoints, each", found["keeping"] / found["kept"], ""],
        ["MLflow in its own process: its import, begun with the stage", importing, importing / TEN_MINUTES],
        [f"- a point of the curve, every {LOG_EVERY_S:g} s of ten minutes", log, loop / TEN_MINUTES],
        ["DVC: `dvc repro` of the stage over the stage by itself", added, added / TEN_MINUTES],
        ["MLflow and DVC together, if training waited for all of it", together, together / TEN_MINUTES],
    ]
    keep("pipeline-cost" + "-gpu" * on_gpu, [
        table(["what", "seconds", "share of ten minutes"], rows),
        "MLflow's import, its run and its points of the curve are the work of a process beside training, which waits "
        "for none of it; where all cores train, they are shared with it.",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
