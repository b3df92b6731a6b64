"""Stage `register`: the trained pyramid becomes a version in MLflow's registry, and the pipeline's run ends with its
metrics and report. What it did is left in reports/registered.json.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lapcvae.config import PARAMS_FILE, read_params
from lapcvae.errors import ConfigError, RegistryError
from lapcvae.io.atomic import read_json, write_json
from lapcvae.registry import models, spool, tracking
from lapcvae.registry.source import flatten, git_tags
from lapcvae.registry.store import tracking_uri
from pipelines.stage import run_stage

# With the lock, DVC brings back every file that the model was made from and with.
SOURCES = [Path("params.yaml"), Path("dvc.yaml"), Path("dvc.lock")]
MODELS, PYRAMID, REPORTS = Path("models"), Path("data/pyramid/pyramid.json"), Path("reports")


def work() -> str:
    """Run the stage; returns its status line."""
    config, params = tracking.read_config(), read_params()
    metrics: dict[str, Any] = read_json(REPORTS / "metrics.json")
    numbers = flatten(metrics)
    if config.primary_metric not in numbers:
        raise ConfigError(f"{PARAMS_FILE}: `tracking.primary_metric`: {config.primary_metric} is not in metrics.json")
    data_digest = read_json(PYRAMID)["data_digest"]
    levels = [MODELS / f"level{k}" for k in range(1, read_json(MODELS / "level1/model.json")["depth"] + 1)]
    trained = [*reversed(levels), *(MODELS / name for name in (*params["baselines"], *params["end_to_end"]))]
    spool.deliver()
    records = {folder.name: read_json(folder / "run.json") for folder in trained}
    # `dvc commit` or an older checkout may hold models whose records are older than this entry.
    begun = sorted({record.get("warm_start", "") for record in records.values()} - {""})
    made_by = {name: spool.resolve(record["mlflow_run_id"]) for name, record in records.items()}
    run_id = tracking.finish_pipeline(
        metrics, [REPORTS / "metrics.json", REPORTS / "index.html"], made_by, data_digest=data_digest
    )
    if not run_id:
        raise RegistryError(f"MLflow at {tracking_uri()} is away; once it is back, `dvc repro` registers the models")
    tags = git_tags() | {
        "data_digest": data_digest,
        "warm_start": ", ".join(begun),
        "params_digest": models.params_digest(params),
        "primary_metric": config.primary_metric,
        "primary_value": f"{numbers[config.primary_metric]:.6g}",
        **{f"run.{name}": run for name, run in made_by.items()},
    }
    tracking.keep_sources(run_id, SOURCES)
    registered = models.register(config.model, levels, run_id, tags, crown_first=not os.environ.get(tracking.GATED))
    write_json(
        REPORTS / "registered.json",
        {"name": registered.name, "version": registered.version, "run_id": registered.run_id},
    )
    known = "new" if registered.is_new else "known already"
    return f"{registered.name} version {registered.version} ({known}), {tags['primary_metric']} {tags['primary_value']}"


if __name__ == "__main__":
    run_stage("register", work)
