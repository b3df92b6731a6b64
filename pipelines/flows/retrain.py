"""Retraining as a Prefect flow: the inbox, DVC's graph with a task a stage, the gate, and a page of what came of it.

    python -m pipelines.flows.retrain

Where Prefect's server is away, the same work is done without it: retraining must not wait for its clock.
"""

from __future__ import annotations

import os
import sys
import time

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from lapcvae.config import load
from lapcvae.errors import LapcvaeError
from pipelines import dvc_runner, journal, retraining
from pipelines.flows import server, unended
from pipelines.flows.run import PIPELINE_RUN, worth_another_try
from pipelines.outcome import Outcome, RetrainConfig, RunStage, Say

RETRIES, RETRY_DELAY_S = 2, 10.0
_finished: list[Outcome] = []  # what this process's retraining came to, once it has


@task(task_run_name="{stage}", cache_policy=NO_CACHE, persist_result=False, retry_condition_fn=worth_another_try)
def run_stage(stage: str, deadline: float) -> None:
    """Have DVC bring one stage up to date before the deadline. Raises `PipelineError` with the stage's own message."""
    dvc_runner.run_stage(stage, say=get_run_logger().info, deadline=deadline)


@flow(name="retrain", log_prints=False, persist_result=False)
def retrain(retries: int = RETRIES, retry_delay_s: float = RETRY_DELAY_S) -> str:
    """Do one retraining (see `pipelines.retraining`); its status in a word.

    A run that finds another one going on ends at once as `busy`. `retries` are further tries a stage.
    """
    log = get_run_logger()
    name = str(flow_run.get_id())
    with unended.noted(name) as note, journal.one_at_a_time(name) as held:
        if held is None:
            log.info("another retraining is going on; nothing to do")
            note.status = "busy"
            return note.status
        died = held.died or {"name": "", "phase": ""}
        if held.died:
            log.info("an earlier run died in phase `%s`; this one finishes its work", died["phase"])
        if told := unended.settle(died["name"], died["phase"]):
            log.info("Prefect did not know how %d runs had ended; now it does", told)
        late = server.cancel_missed(name)
        if late:
            log.info("%d runs that were missed are caught up by this one", late)

        def stage_task(stage: str, deadline: float) -> None:
            tried = run_stage.with_options(retries=retries, retry_delay_seconds=retry_delay_s)
            server.unless_away(lambda: tried(stage, deadline), lambda: dvc_runner.run_stage(stage, deadline=deadline))

        outcome = _under(name, stage_task, log.info)
        server.unless_away(lambda: _show(outcome), lambda: None)
        note.status = outcome.status
    return outcome.status


def _under(name: str, stages: RunStage, say: Say) -> Outcome:
    """Everything that this run logs to MLflow is under one run, known by the flow run's id."""
    os.environ[PIPELINE_RUN] = f"flow {name}"
    _finished[:] = [retraining.retrain(stages, say)]
    return _finished[0]


def _show(outcome: Outcome) -> None:
    """Leave what came of the run on Prefect's pages: a text with the table, and the pictures."""
    lines = [f"**{outcome.status}**", "", *(f"- {line}" for line in outcome.lines)]
    if outcome.drift is not None:
        lines += ["", "| column | PSI | KS | p | before | in the batch |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {c.column} | {c.psi:.3f} | {c.ks:.3f} | {c.p_value:.2g} | {c.reference_mean:.4g} | {c.batch_mean:.4g} |"
            for c in outcome.drift.columns
        ]
    if outcome.contest is not None:
        lines += ["", outcome.contest.card]
    create_markdown_artifact("\n".join(lines), key="retraining", description="What came of the retraining")
    for name, address in server.picture_addresses(outcome.contest.pictures if outcome.contest else {}).items():
        create_image_artifact(address, key="faces", description=name.replace("_", " "))


def _alone() -> None:
    print("retrain: Prefect's server is away; going on without it", file=sys.stderr)
    with journal.one_at_a_time(f"no-prefect-{time.time_ns()}") as held:
        if held is None:
            print("retrain: another retraining is going on; nothing to do")
            return
        _under(f"alone {time.time_ns()}", lambda stage, d: dvc_runner.run_stage(stage, deadline=d), print)


def _after_it_went() -> None:
    """Prefect cannot end its own run without its server; the work may be done for all that."""
    if _finished:
        print(f"retrain: {_finished[0].status}; Prefect's server went away, so its page is missing", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # else Prefect goes on for minutes, trying to deliver its events to nobody
    else:
        _alone()


def main() -> None:
    """Run the flow once, with Prefect or without, and end as the stage that failed did."""
    try:
        if server.is_wanted_and_away():
            _alone()
            return
        load(RetrainConfig, "retrain")  # a wrong parameter is said before a server is started for it
        server.unless_away(retrain, _after_it_went)
    except LapcvaeError as error:
        print(f"retrain: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
