"""The pipeline as a Prefect flow: DVC's graph in DVC's order, a task a stage.

    python -m pipelines.flows.run

DVC alone decides what must run and in which order, and keeps what was made; Prefect adds retries, and shows state and
timing. Without a server (`PREFECT_API_URL` unset) Prefect starts one for the length of the flow.
"""

from __future__ import annotations

import os
import sys

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.runtime import flow_run
from prefect.states import State

from lapcvae.errors import LapcvaeError, PipelineError
from pipelines import dvc_runner

USERS_MISTAKE = 2
PIPELINE_RUN = "LAPCVAE_PIPELINE_RUN"


def worth_another_try(_task: object, _run: TaskRun, state: State) -> bool:
    """A wrong parameter, a missing source or a full disk stays until someone mends it; a killed process may pass."""
    error = state.result(raise_on_failure=False)
    return not (isinstance(error, PipelineError) and error.exit_code == USERS_MISTAKE)


@task(task_run_name="{stage}", cache_policy=NO_CACHE, persist_result=False, retry_condition_fn=worth_another_try)
def run_stage(stage: str) -> None:
    """Have DVC bring one stage up to date. Raises `PipelineError` with the stage's own message."""
    dvc_runner.run_stage(stage, say=get_run_logger().info)


@flow(name="pipeline", log_prints=False, persist_result=False)
def pipeline(retries: int = 2, retry_delay_s: float = 10.0) -> None:
    """Bring every stage of `dvc.yaml` up to date, stopping at the first that fails all its tries.

    `retries` are further tries a stage, `retry_delay_s` the seconds between them. Raises `PipelineError`.
    """
    os.environ[PIPELINE_RUN] = f"flow {flow_run.get_id()}"  # all stages log under one MLflow run
    for stage in dvc_runner.stages():
        run_stage.with_options(retries=retries, retry_delay_seconds=retry_delay_s)(stage)


def main() -> None:
    """Run the flow once, and end as the stage that failed did."""
    try:
        pipeline()
    except LapcvaeError as error:
        print(f"pipeline: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
