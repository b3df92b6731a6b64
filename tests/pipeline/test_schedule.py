"""What Prefect's server knows of retrainings: one at a time, missed ones caught up once, dead ones marked."""

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Failed, Pending, Running, Scheduled, State

from lapcvae.errors import PipelineError
from lapcvae.io.atomic import read_json, write_json
from lapcvae.io.process import own_name
from pipelines import journal, retraining
from pipelines.flows import retrain as retrain_flow
from pipelines.flows import server, unended

ROOT = Path(__file__).parents[2]


@flow(name="retrain-for-tests")
def nothing() -> None:
    """Stands for the flow of a deployment."""


def _deployment() -> tuple[UUID, UUID]:
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(nothing)
        return flow_id, client.create_deployment(flow_id, "weekly")


def _state(run: UUID) -> StateType:
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(run).state
        assert found is not None
        return found.type


def _message(run: UUID) -> str:
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(run).state
        assert found is not None
        return found.message or ""


def test_missed_runs_are_caught_up_once(prefect_server: None) -> None:
    _, deployment = _deployment()
    _, other = _deployment()
    today = datetime.datetime.now(datetime.UTC)
    with get_client(sync_client=True) as client:
        missed = [
            client.create_flow_run_from_deployment(
                deployment, state=Scheduled(scheduled_time=today - datetime.timedelta(weeks=w))
            ).id
            for w in (3, 2, 1)
        ]
        coming = client.create_flow_run_from_deployment(
            deployment, state=Scheduled(scheduled_time=today + datetime.timedelta(weeks=1))
        )
        client.set_flow_run_state(missed[0], Running(), force=True)
        client.set_flow_run_state(missed[1], Pending(), force=True)  # its worker was killed as it began
    assert other == deployment
    assert server.cancel_missed(str(missed[0])) == 2
    assert [_state(run) for run in missed] == [StateType.RUNNING, StateType.CANCELLED, StateType.CANCELLED]
    assert _state(coming.id) == StateType.SCHEDULED
    assert server.cancel_missed(str(missed[0])) == 0


def test_a_run_started_by_hand_cancels_nothing(prefect_server: None) -> None:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(nothing, state=Running())
    assert server.cancel_missed(str(run.id)) == 0


def _noted(status: str = "", error: str = "", process: str = "1@1.0", known: State[None] | None = None) -> UUID:
    """A run that the server takes to be going on, or to be `known`, and the note of it."""
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(nothing, state=Running()).id
        if known is not None:
            client.set_flow_run_state(run, known, force=True)
    write_json(unended.NOTES / f"{run}.json", {"process": process, "status": status, "error": error})
    return run


def test_runs_that_ended_unseen_are_marked_as_what_they_are(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    killed, done, failed, alive = (
        _noted(), _noted(status="promoted"), _noted(error="the disk is full"), _noted(process=own_name())
    )  # fmt: skip
    misjudged = _noted(status="promoted", known=Failed(message="Connection refused"))
    called_off = _noted(status="promoted", known=Cancelled(message="by hand"))
    write_json(
        unended.NOTES / "00000000-0000-4000-8000-000000000000.json", {"process": "1@1.0", "status": "", "error": ""}
    )
    assert unended.settle(str(killed), "gate") == 4
    assert [_state(run) for run in (killed, done, failed, alive, misjudged, called_off)] == [
        StateType.CRASHED, StateType.COMPLETED, StateType.FAILED, StateType.RUNNING, StateType.COMPLETED,
        StateType.CANCELLED,
    ]  # fmt: skip
    assert "killed in phase `gate`" in _message(killed)
    assert "promoted; this server was away" in _message(done)
    assert "the disk is full" in _message(failed)
    assert [path.stem for path in unended.NOTES.iterdir()] == [str(alive)]
    assert unended.settle("", "") == 0


def test_a_run_notes_how_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with unended.noted("a") as note:
        assert read_json(unended.NOTES / "a.json")["status"] == ""
        note.status = "rejected"
    assert read_json(unended.NOTES / "a.json")["status"] == "rejected"
    with pytest.raises(PipelineError), unended.noted("b"):
        raise PipelineError("the disk is full", 1)
    assert read_json(unended.NOTES / "b.json")["error"] == "the disk is full"


def test_a_flow_that_finds_another_one_going_on_ends_at_once(
    prefect_server: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(retraining, "retrain", lambda *_: pytest.fail("two at once"))
    with journal.one_at_a_time("another"):
        assert retrain_flow.retrain() == "busy"


def test_a_server_that_goes_away_amid_a_run_costs_its_page_only() -> None:
    def gone() -> str:
        return httpx.get("http://127.0.0.1:9", trust_env=False).text

    assert server.unless_away(gone, lambda: "done without it") == "done without it"

    def wrapped() -> str:
        try:
            return gone()
        except httpx.HTTPError as error:
            raise RuntimeError("Prefect says so in its own words") from error

    assert server.unless_away(wrapped, lambda: "done without it") == "done without it"
    with pytest.raises(RuntimeError, match="ours"):
        server.unless_away(lambda: (_ for _ in ()).throw(RuntimeError("ours")), lambda: None)


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_the_same_deployment_goes_to_pools_of_containers(prefect_server: None, kind: str) -> None:
    """With the commands that README.md gives. Prefect's server checks the variables against the kind of pool."""
    variables: dict[str, object] = {"image": "faces.example/lapcvae:1"}
    if kind == "docker":
        variables["volumes"] = ["/srv/lapcvae:/app"]
    environment = os.environ | {
        "PREFECT_API_URL": str(get_current_settings().api.url), "LAPCVAE_POOL": f"team-{kind}",
        "LAPCVAE_PROJECT": "/app",
    }  # fmt: skip
    for command in (
        ["work-pool", "create", f"team-{kind}", "--type", kind],
        ["--no-prompt", "deploy", "--all", "--job-variable", json.dumps(variables)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *command], cwd=ROOT, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    with get_client(sync_client=True) as client:
        found = client.read_deployment_by_name("retrain/weekly")
    assert (found.work_pool_name, found.job_variables) == (f"team-{kind}", variables)
    assert found.entrypoint == "pipelines/flows/retrain.py:retrain"
    assert found.pull_steps == [{"prefect.deployments.steps.set_working_directory": {"directory": "/app"}}]
    assert [schedule.schedule.cron for schedule in found.schedules] == ["0 3 * * 1"]


def test_prefect_yaml_names_the_flow() -> None:
    (deployment,) = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    path, _, name = deployment["entrypoint"].partition(":")
    assert (ROOT / path).is_file()
    assert getattr(retrain_flow, name).name == "retrain"
    assert "concurrency_limit" not in deployment, "a place that is never given back would stop the schedule"
