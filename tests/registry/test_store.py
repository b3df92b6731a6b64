import subprocess
import sys
from pathlib import Path

import pytest

from lapcvae.registry.store import open_client, open_experiment, tracking_uri


def test_environment_names_the_store(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracking_uri() == f"sqlite:///{project}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking_uri() == "http://127.0.0.1:5000"


def test_copy_of_the_project_made_by_dvc_uses_the_real_projects_store(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = project / ".dvc" / "tmp" / "exps" / "standalone" / "abc"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert tracking_uri() == f"sqlite:///{project}/mlflow.db"
    monkeypatch.setenv("DVC_ROOT", str(project / "elsewhere"))
    assert tracking_uri() == f"sqlite:///{project}/elsewhere/mlflow.db"


def test_experiment_in_the_bin_is_restored(project: Path) -> None:
    client = open_client()
    first = open_experiment(client, "faces")
    client.delete_experiment(first)
    assert open_experiment(client, "faces") == first
    assert client.get_experiment(first).lifecycle_stage == "active"


def test_two_processes_may_meet_a_new_store_together(project: Path) -> None:
    (project / "mlflow.db").unlink()
    (project / "mlflow.db.partial").write_bytes(b"left by a process that was killed amid the migrations")
    program = "from lapcvae.registry.store import *; print(open_experiment(open_client(), 'faces'))"
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert answers[0] == answers[1]  # the same experiment, and nothing on stderr but what both say
    assert not (project / "mlflow.db.partial").exists()
