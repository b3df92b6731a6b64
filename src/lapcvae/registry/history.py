"""One MLflow run that shows the champions over time: a curve a measure, a point a gate."""

from __future__ import annotations

import time

from lapcvae.registry.store import open_client, open_experiment, told

NAME = "champions over time"


def note(experiment: str, step: int, measures: dict[str, float]) -> str:
    """Add a point to the curves at `step` (the challenger's version); the run's id. Repeating it adds nothing.

    Raises `RegistryError` where MLflow is away.
    """
    from mlflow.entities import Metric

    with told():
        client = open_client()
        place = open_experiment(client, experiment)
        found = client.search_runs([place], "tags.kind = 'history'", max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
        else:
            run_id = str(client.create_run(place, run_name=NAME, tags={"kind": "history"}).info.run_id)
            client.set_terminated(run_id, "FINISHED")
        for key, value in measures.items():
            there = client.get_metric_history(run_id, key) if key in client.get_run(run_id).data.metrics else []
            if all(metric.step != step for metric in there):
                client.log_batch(run_id, metrics=[Metric(key, float(value), int(time.time() * 1000), step)])
    return run_id
