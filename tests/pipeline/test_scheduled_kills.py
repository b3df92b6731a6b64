"""A schedule whose processes are killed: Prefect's own server and worker around the real flow, on a small DVC graph."""

import contextlib
import datetime
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.pipeline import backends

ROOT = Path(__file__).parents[2]
GRAPH = """\
stages:
  source: {cmd: "true", always_changed: true}
  first: {cmd: python stage.py first, deps: [stage.py], outs: [first]}
  second: {cmd: python stage.py second, deps: [stage.py, first, wanted], outs: [second]}
"""
STAGE = """\
import sys, time
from pathlib import Path
from pipelines.stage import run_stage

def work():
    Path("started").touch()
    with Path("ran").open("a") as ran:
        ran.write(sys.argv[1] + "\\n")
    while Path("slow").exists():
        time.sleep(0.1)
    Path(sys.argv[1]).write_text(Path("wanted").read_text())
    return "done"

run_stage(sys.argv[1], work)
"""
FINAL = {"COMPLETED", "CRASHED", "FAILED", "CANCELLED"}


@dataclass
class Schedule:
    """`make schedule` in a project, and what Prefect says of its runs."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Come up, and be ready for runs. As a shell starts jobs in the background: with SIGINT ignored."""
        dropped = ("PREFECT_API_URL", "DVC_ROOT", "LAPCVAE_RUNNER", "LAPCVAE_PIPELINE_RUN", "MLFLOW_TRACKING_URI")
        environment = {name: value for name, value in os.environ.items() if name not in dropped}
        environment |= {
            "PYTHONPATH": os.pathsep.join([str(self.folder), str(ROOT / "src")]),
            "PREFECT_HOME": str(self.folder.parent / "prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        log = self.folder.parent / "schedule.log"
        said = log.stat().st_size if log.exists() else 0
        with log.open("ab") as stream:
            heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "pipelines.flows.schedule", "--port", str(self.port)],
                    cwd=self.folder, env=environment, stdout=stream, stderr=stream, start_new_session=True,
                )  # fmt: skip
            finally:
                signal.signal(signal.SIGINT, heard)
        self.until(lambda: b"schedule: on" in log.read_bytes()[said:], "the schedule is on")

    def stop(self) -> None:
        """Ctrl-C, and wait for the end."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(120)

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait for something."""
        end = time.monotonic() + 400
        while not holds():
            assert time.monotonic() < end, (
                f"not so: {what}\n{(self.folder.parent / 'schedule.log').read_text()[-6000:]}"
            )
            time.sleep(0.1)

    def api(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask Prefect's server, again where it says that its database is busy, as Prefect's own client does."""
        address = f"http://127.0.0.1:{self.port}/api/{path}"
        answers: list[httpx.Response] = []

        def not_busy() -> bool:
            method = "GET" if body is None else "POST"
            answers.append(httpx.request(method, address, json=body, trust_env=False, timeout=60))
            return answers[-1].status_code != httpx.codes.SERVICE_UNAVAILABLE

        self.until(not_busy, "Prefect's server answers")
        answer = answers[-1]
        answer.raise_for_status()
        return answer.json()

    def run_late(self) -> str:
        """A run whose time was an hour ago; its id."""
        deployment = self.api("deployments/name/retrain/weekly")["id"]
        due = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)).isoformat()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
        return str(self.api(f"deployments/{deployment}/create_flow_run", {"state": state})["id"])

    def state(self, run: str) -> tuple[str, str]:
        """Of a run: type and message; of no answer, neither."""
        try:
            state = self.api(f"flow_runs/{run}")["state"]
        except httpx.HTTPError:
            return "", ""
        return state["type"], state["message"] or ""

    def amid_work(self) -> None:
        """Wait until a stage is at work."""
        self.until((self.folder / "started").exists, "a stage works")
        (self.folder / "started").unlink()

    def kill(self, *words: str) -> None:
        """SIGKILL the one process below the schedule whose command line ends with these words or begins with them."""
        below = psutil.Process(self.process.pid).children(recursive=True)
        (one,) = [p for p in below if all(word in p.cmdline() for word in words) and "-c" not in p.cmdline()]
        one.kill()

    def kill_flow(self) -> None:
        """SIGKILL the process that runs the flow."""
        journal = (self.folder / ".cache/retrain/run.json").read_text()
        psutil.Process(int(journal.partition('"process": "')[2].partition("@")[0])).kill()

    def left(self) -> list[str]:
        """Command lines of what works in the project's folder but for the schedule, its server and its worker."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                ours = {"server", "worker", "pipelines.flows.schedule"} & set(words)
                if not ours and Path(process.cwd()) == self.folder and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(words))
        return found


@pytest.fixture
def schedule(tmp_path: Path) -> Iterator[Schedule]:
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "pipelines", folder / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "prefect.yaml"):
        shutil.copyfile(ROOT / name, folder / name)
    for name, text in {"dvc.yaml": GRAPH, "stage.py": STAGE, "wanted": "1"}.items():
        (folder / name).write_text(text)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=folder, check=True)
    found = Schedule(folder, backends.free_port())
    yield found
    if hasattr(found, "process") and found.process.poll() is None:
        found.stop()


def test_the_cron_makes_runs_and_the_schedule_ends_with_all_it_started(schedule: Schedule) -> None:
    schedule.start()
    coming = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}, "sort": "EXPECTED_START_TIME_ASC"}
    schedule.until(lambda: schedule.api("flow_runs/filter", coming), "Prefect's scheduler has made runs")
    first = schedule.api("flow_runs/filter", coming)[0]
    due = datetime.datetime.fromisoformat(first["expected_start_time"])
    assert (due.weekday(), due.hour, due.minute) == (0, 3, 0)
    family = psutil.Process(schedule.process.pid).children(recursive=True)
    schedule.stop()
    assert psutil.wait_procs(family, timeout=60)[1] == []


def test_what_is_killed_is_marked_and_the_next_run_finishes_its_work(schedule: Schedule) -> None:
    folder = schedule.folder
    (folder / "slow").touch()
    schedule.start()
    # The machine's power fails: server, worker and flow are gone at once.
    first = schedule.run_late()
    schedule.amid_work()
    for process in [
        *psutil.Process(schedule.process.pid).children(recursive=True),
        psutil.Process(schedule.process.pid),
    ]:
        with contextlib.suppress(psutil.Error):
            if "stage.py" not in process.cmdline():  # of these the runner's end must be enough
                process.kill()
    schedule.process.wait()
    schedule.until(lambda: not schedule.left(), "no process is left of it")
    # The next run, of which the flow alone is killed: its worker sees that.
    schedule.start()
    second = schedule.run_late()
    schedule.amid_work()
    assert schedule.state(first) == ("CRASHED", "its process was killed in phase `stage first`")
    schedule.kill_flow()
    schedule.until(lambda: schedule.state(second)[0] in FINAL, "the worker says that its flow crashed")
    assert schedule.state(second)[0] == "CRASHED"
    schedule.until(lambda: not schedule.left(), "no process is left of it")
    # The next run, amid which Prefect's server is killed, does all the work; the schedule brings the server back.
    third = schedule.run_late()
    schedule.amid_work()
    schedule.kill("server", "start")
    (folder / "slow").unlink()
    schedule.until(lambda: (folder / "second").exists() and not schedule.left(), "the third run ends")
    assert (folder / "second").read_text() == "1"
    # And the next has nothing to do but to say what became of that one.
    schedule.until(lambda: schedule.state(third)[0], "the server is back")
    fourth = schedule.run_late()
    schedule.until(lambda: schedule.state(fourth)[0] in FINAL, "the fourth run ends")
    assert schedule.state(fourth)[0] == "COMPLETED"
    assert schedule.state(third)[0] == "COMPLETED"
    schedule.stop()
    assert not schedule.left()


def test_two_schedules_and_three_missed_runs_are_one_retraining(schedule: Schedule) -> None:
    folder = schedule.folder
    (folder / "slow").touch()
    schedule.start()
    second = Schedule(folder, schedule.port)
    second.start()  # finds the server that is there, and has a worker of its own
    missed = [schedule.run_late() for _ in range(3)]
    schedule.amid_work()
    meanwhile = schedule.run_late()
    schedule.until(lambda: schedule.state(meanwhile)[0] in FINAL, "the other worker's run ends at once")
    assert schedule.state(meanwhile)[0] == "COMPLETED"
    assert not (folder / "first").exists(), "the first run still works"
    (folder / "slow").unlink()
    schedule.until(lambda: all(schedule.state(run)[0] in FINAL for run in missed), "the missed runs are over")
    assert {schedule.state(run)[0] for run in missed} <= {"COMPLETED", "CANCELLED"}
    assert (folder / "ran").read_text().split() == ["first", "second"]
    second.stop()
    schedule.stop()
    assert not schedule.left()
