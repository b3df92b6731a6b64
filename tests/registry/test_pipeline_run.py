"""Stages that a real `dvc` starts find their one parent by themselves."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.entities import Run

from lapcvae.registry import tracking
from lapcvae.registry.store import open_client

STAGE = """\
import sys
from pathlib import Path
from lapcvae.registry import tracking

with tracking.child_run(sys.argv[1], "level", {}) as run:
    Path(sys.argv[1]).write_text(run.run_id)
"""
GRAPH = f"""\
stages:
  coarse: {{cmd: "{sys.executable} stage.py coarse", deps: [stage.py], params: [levels], outs: [coarse]}}
  fine: {{cmd: "{sys.executable} stage.py fine", deps: [stage.py, coarse], outs: [fine]}}
"""


@pytest.fixture
def graph(project: Path) -> Path:
    (project / "stage.py").write_text(STAGE)
    (project / "dvc.yaml").write_text(GRAPH)
    (project / ".gitignore").write_text("/mlflow.db*\n/mlartifacts/\n/coarse\n/fine\n")
    _run("git", "init", "-q")
    _run("git", "config", "user.name", "Somebody")
    _run("git", "config", "user.email", "somebody@example.org")
    _run(sys.executable, "-m", "dvc", "init", "-q")
    _run("git", "add", ".")
    _run("git", "commit", "-qm", "start")
    return project


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _runs(kind: str) -> list[Run]:
    client = open_client()
    faces = client.get_experiment_by_name("faces")
    assert faces is not None
    return list(client.search_runs([faces.experiment_id], f"tags.kind = '{kind}'", order_by=["start_time ASC"]))


def _parents() -> list[str]:
    return [run.data.tags["mlflow.parentRunId"] for run in _runs("level")]


def test_one_parent_a_dvc_process(graph: Path) -> None:
    _run(sys.executable, "-m", "dvc", "repro", "-q")
    (first,) = _runs("pipeline")
    assert _parents() == [first.info.run_id] * 2
    assert first.data.tags["mlflow.source.git.commit"] == _run("git", "rev-parse", "HEAD").strip()
    assert first.data.tags["git_dirty"] == "false"

    (graph / "params.yaml").write_text((graph / "params.yaml").read_text().replace("0.5", "0.25"))
    _run(sys.executable, "-m", "dvc", "exp", "run", "-q", "--temp", "--name", "lighter")
    same, second = _runs("pipeline")  # the copy's runs are in the real project's store, not lost with the copy
    assert same.info.run_id == first.info.run_id
    assert second.info.run_name.startswith("lighter ")
    assert second.data.params["levels.3.beta"] == "0.25"
    assert second.data.tags["mlflow.source.git.commit"] == first.data.tags["mlflow.source.git.commit"]
    assert _parents() == [first.info.run_id] * 2 + [second.info.run_id] * 2


def test_stages_started_by_hand_have_parents_of_their_own(project: Path) -> None:
    for name in ("coarse", "fine"):
        with tracking.child_run(name, "level", {}):
            pass
    assert len(set(_parents())) == 2
