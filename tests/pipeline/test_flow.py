"""Prefect in the way never changes what DVC makes; a failure stops the flow and keeps its own words and exit code."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from lapcvae.errors import PipelineError
from pipelines import dvc_runner
from pipelines.flows.run import pipeline

ROOT = Path(__file__).parents[2]


def _made(project: Path) -> dict[str, bytes]:
    """Everything DVC made or keeps, but its scratch."""
    files = (path for path in project.rglob("*") if path.is_file())
    return {
        name: path.read_bytes()
        for path in files
        if not (name := path.relative_to(project).as_posix()).startswith((".dvc/tmp/", ".dvc/.gitignore"))
    }


def test_flow_makes_what_plain_dvc_makes(new_project: Callable[[str], Path], prefect_server: None) -> None:
    changed = "first: 1\nmiddle: {a: 1, b: 2}\n"
    made = {}
    for way, run in {"flow": pipeline, "plain": dvc_runner.run_everything}.items():
        project = new_project(way)
        run()
        (project / "params.yaml").write_text(changed)
        run()
        made[way] = _made(project)
    assert made["flow"].keys() == made["plain"].keys()
    assert made["flow"] == made["plain"]
    tries = made["flow"]["tries"].decode().split()
    assert len(tries) == 7  # five stages, then the changed one and the one after it
    assert tries[-2:] == ["middle@b", "last"]


def test_users_mistake_is_not_tried_again_and_stops_what_follows(
    new_project: Callable[[str], Path], prefect_server: None
) -> None:
    project = new_project("mistake")
    (project / "trouble" / "middle@b").write_text("2")
    with pytest.raises(PipelineError) as raised:
        pipeline(retries=2, retry_delay_s=0.0)
    assert raised.value.exit_code == 2
    assert "middle@b: error: the disk of middle@b is full" in str(raised.value)
    tries = (project / "tries").read_text().split()
    assert tries.count("middle@b") == 1
    assert "last" not in tries


def test_what_may_pass_is_tried_again(new_project: Callable[[str], Path], prefect_server: None) -> None:
    project = new_project("passing")
    (project / "trouble" / "first").write_text("1")
    pipeline(retries=1, retry_delay_s=0.0)
    tries = (project / "tries").read_text().split()
    assert tries.count("first") == 2
    assert (project / "last").exists()


def test_tries_are_limited(new_project: Callable[[str], Path], prefect_server: None) -> None:
    project = new_project("broken")
    (project / "trouble" / "first").write_text("1 1 1 1")
    with pytest.raises(PipelineError) as raised:
        pipeline(retries=1, retry_delay_s=0.0)
    assert raised.value.exit_code == 1
    assert (project / "tries").read_text().split().count("first") == 2


def test_server_shows_a_task_a_stage(new_project: Callable[[str], Path], prefect_server: None) -> None:
    project = new_project("shown")
    (project / "trouble" / "middle@b").write_text("2")
    state = pipeline(return_state=True)
    assert state.is_failed()
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_task_runs() if run.flow_run_id == state.state_details.flow_run_id]
    order = dvc_runner.stages()
    shown = {run.name: run.state.type.value for run in runs if run.state}
    tried = order[: order.index("middle@b") + 1]
    assert shown == dict.fromkeys(tried, "COMPLETED") | {"middle@b": "FAILED"}


def test_flow_runs_with_no_server_and_an_empty_home(new_project: Callable[[str], Path], tmp_path: Path) -> None:
    project = new_project("alone")
    (project / "prefect.toml").write_bytes((ROOT / "prefect.toml").read_bytes())
    (project / "trouble" / "last").write_text("2")
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.flows.run"],
        env=environment | {"HOME": str(home), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "last: error: the disk of last is full" in done.stderr
    assert "middle@b" in (project / "tries").read_text()
    assert (project / ".prefect" / "prefect.db").exists()
    assert not list(home.rglob("*prefect*"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without a name")
def test_a_user_without_a_name_has_a_number() -> None:
    # Read before, for that user may not be let into this folder.
    package = (ROOT / "pipelines/flows/__init__.py").read_text(encoding="utf-8")
    code = "import getpass, os, sys; os.setuid(54321); exec(sys.argv[1]); print(getpass.getuser())"
    done = subprocess.run([sys.executable, "-c", code, package], env={}, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("54321\n", "")
