"""MLflow away before, during and after training: nothing is lost, nothing comes twice."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from lapcvae.registry import crashed, spool, tracking
from lapcvae.registry.store import open_client

SERVER = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]


class Server:
    """A real MLflow server that can be killed and come back, on one port and one database."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.process = folder, None  # type: ignore[var-annotated]

    def start(self) -> None:
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        place = ["--artifacts-destination", str(self.folder / "kept"), "--port", str(self.port)]
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.process = subprocess.Popen(
            [sys.executable, *SERVER, *store, *place],
            env=os.environ | quiet, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/health", trust_env=False)
                return
            except httpx.HTTPError:
                assert self.process.poll() is None
                time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{found.port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield found
    found.kill()


def curve(run_id: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in open_client().get_metric_history(run_id, "rate_nats")]


def test_away_before_amid_and_after(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    with tracking.child_run("level 3", "level", {"a": 1}, data_digest="ab" * 32) as before:  # away all along
        for step in range(3):
            before.log(step, {"rate_nats": float(step)})
        before.picture("grid", np.zeros((2, 2, 3), np.uint8))
    assert before.run_id == ""
    assert before.record_id.startswith(spool.PREFIX)

    server.start()
    amid_run = tracking.child_run("level 2", "level", {"a": 2})
    with amid_run as amid:
        amid.log(0, {"rate_nats": 0.0})
        amid.wait()
        server.kill()  # away from here on, past the end of the run
        amid.log(1, {"rate_nats": 1.0})
        amid.tag("note", "kept")
    assert amid.run_id
    assert "is kept and delivered later" in capsys.readouterr().err
    server.start()
    assert spool.deliver() == 2
    assert spool.deliver() == 0

    run_id = spool.resolve(before.record_id)
    client = open_client()
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"a": "1"}
    assert found.data.tags["data_digest"] == "ab" * 32
    assert client.get_run(found.data.tags["mlflow.parentRunId"]).data.tags["kind"] == "pipeline"
    assert curve(run_id) == [(0, 0.0), (1, 1.0), (2, 2.0)]
    assert [f.path for f in client.list_artifacts(run_id)] == ["grid.png"]
    assert curve(amid.run_id) == [(0, 0.0), (1, 1.0)]
    assert client.get_run(amid.run_id).data.tags["note"] == "kept"
    assert client.get_run(amid.run_id).info.status == "FINISHED"


def test_delivering_twice_logs_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with tracking.child_run("level 3", "level", {"a": 1}) as run:
            run.log(0, {"rate_nats": 1.0})
    (folder,) = spool.folder().iterdir()
    shutil.copytree(folder, project / "copy")
    assert spool.deliver() == 1
    shutil.copytree(project / "copy", folder)  # as if it had been killed before the folder was removed
    assert spool.deliver() == 1
    run_id = spool.resolve(run.record_id)
    assert curve(run_id) == [(0, 1.0)]
    client = open_client()
    experiment = client.get_experiment_by_name("faces")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id], "tags.kind = 'level'")) == 1


def test_a_spool_of_a_killed_run_is_delivered_as_failed(project: Path) -> None:
    program = (
        "import os, signal\nfrom lapcvae.registry import tracking\n"
        "with tracking.child_run('level 3', 'level', {}) as run:\n"
        "    run.log(0, {'rate_nats': 1.0}); run.wait(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    away: dict[str, Any] = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment | away, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    (folder,) = spool.folder().iterdir()
    operations = [json.loads(line)["op"] for line in (folder / "ops.jsonl").read_text().splitlines()]
    assert operations == ["start", "metrics"]
    assert spool.deliver() == 1
    run = open_client().get_run(spool.resolve(f"{spool.PREFIX}{folder.name}"))
    assert run.info.status == "FAILED"
    assert run.data.tags["crashed"] == "true"


def test_runs_of_killed_processes_are_ended_by_the_next_start(project: Path) -> None:
    program = (
        "import os, signal\nfrom lapcvae.registry import tracking\n"
        "with tracking.child_run('level 3', 'level', {}) as run:\n"
        "    print(run.run_id, flush=True); os.killpg(0, signal.SIGKILL)"  # with it, the process that writes for it
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    client, left = open_client(), list[list[str]]()
    for _ in range(2):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, check=False, capture_output=True, start_new_session=True)
        assert done.returncode == -signal.SIGKILL
        run_id = done.stdout.decode().strip()
        left.append([run_id, client.get_run(run_id).data.tags["mlflow.parentRunId"]])
    runs = [*left[0], *left[1]]
    # The second one's start has ended the first one's; its own are ended by a flow's, or a stage's.
    assert [client.get_run(run_id).info.status for run_id in runs] == ["FAILED"] * 2 + ["RUNNING"] * 2
    assert sorted(crashed.mark_crashed("faces")) == sorted(left[1])
    with tracking.child_run("level 2", "level", {}) as living:
        living.wait()
        assert crashed.mark_crashed("faces") == []
        assert client.get_run(living.run_id).info.status == "RUNNING"
    for run in map(client.get_run, runs):
        assert (run.info.status, run.data.tags["crashed"]) == ("FAILED", "true")
