"""The real flow, small, over some weeks: real photographs, DVC, MLflow, and Prefect around it."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
import yaml
from PIL import Image

from lapcvae.config import load
from lapcvae.evaluation import networks, trial
from lapcvae.io.atomic import sha256_file
from lapcvae.registry import lineage, models, promotion
from lapcvae.registry.store import open_client
from pipelines import intake, journal, retraining
from pipelines.outcome import Outcome, RetrainConfig
from tests.pipeline.small_retraining import change, make_project, put, set_updates, some_faces

# Where a run is killed, each further on than the one before; see killed_run.py.
KILLED = [
    "call:lapcvae.data.inbox:examine", "enter:drift", "call:pipelines.dvc_runner:add", "stage:download",
    "stage:landmarks", "stage:align", "stage:validate", "stage:pyramid", "stage:train@2", "stage:train@1",
    "stage:evaluate", "stage:register",
    "call:lapcvae.registry.run:Run.end", "call:lapcvae.registry.history:note",
]  # fmt: skip
KILLED_MOVING = [
    "call:pipelines.champion_weights:write_json", "enter:gate", "call:lapcvae.registry.promotion:promote",
    "enter:record",
]  # fmt: skip


@dataclass
class Week:
    """What a retraining said, and what stood there after it."""

    record: dict[str, Any]
    champion: int | None
    previous: int | None
    manifest: str
    frozen: str
    seconds: float
    extra: dict[str, Any] = field(default_factory=dict)


def flow(project: Path, **extra: Any) -> Week:
    """The flow in a process of its own, as the schedule runs it; here without Prefect's server, which is away."""
    start = time.monotonic()
    done = _flow(project)
    said, errors = done.communicate(timeout=1500)
    assert done.returncode == 0, said + errors
    return _week(time.monotonic() - start, extra | {"said": said})


def _flow(project: Path, **variables: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PYTHONPATH": f"{project}:{project}/src"}
    environment |= variables
    command = [sys.executable, "-m", "pipelines.flows.retrain"]
    return subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _flow_losing_its_server(project: Path) -> Week:
    """The flow with a real Prefect server, which is killed while a stage works."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/api"
    extra = {"PREFECT_HOME": str(project.parent / "prefect"), "PREFECT_CLIENT_MAX_RETRIES": "1"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, env=os.environ | extra, start_new_session=True, **quiet)  # type: ignore[call-overload]
    start, phases = time.monotonic(), project / journal.JOURNAL
    try:
        while not _answers(address):
            assert server.poll() is None
            assert time.monotonic() < start + 120
            time.sleep(0.2)
        done = _flow(project, PREFECT_API_URL=address, **extra)
        while not phases.exists() or json.loads(phases.read_text())["phase"] != "stage pyramid":
            assert done.poll() is None, done.communicate()
            time.sleep(0.05)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    said, errors = done.communicate(timeout=1500)
    return _week(time.monotonic() - start, {"said": said, "errors": errors, "code": done.returncode})


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", trust_env=False, timeout=2).is_success
    except httpx.HTTPError:
        return False


def _week(seconds: float, extra: dict[str, Any]) -> Week:
    now = promotion.standing("lapcvae")
    record = json.loads(Path("reports/retraining.json").read_text())
    return Week(
        record, now.champion, now.previous, sha256_file(Path("data/aligned/manifest.csv")),
        sha256_file(Path("data/frozen_test.csv")), seconds, extra,
    )  # fmt: skip


def _ask_for_warm_start() -> None:
    change(lambda params: params["retrain"].update(warm_start=True))


@dataclass
class Killed:
    """A run that was killed: where, in which phase its journal stood, what it left."""

    point: str
    code: int
    said: str
    died: str
    phase: str
    left: list[str]
    champion: int | None


def _killed(project: Path, point: str) -> Killed:
    environment = os.environ | {"PYTHONPATH": f"{project}:{project}/src"}
    command = [sys.executable, str(Path(__file__).with_name("killed_run.py")), point]
    done = subprocess.run(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=900,
    )  # fmt: skip
    until = time.monotonic() + 60
    while (left := _processes_in(project)) and time.monotonic() < until:
        time.sleep(0.2)
    died = done.stdout.partition("died: ")[2].partition("\n")[0]
    phase = json.loads((project / journal.JOURNAL).read_text())["phase"]
    return Killed(point, done.returncode, done.stdout, died, phase, left, promotion.standing("lapcvae").champion)


def _gate_without_registry() -> Outcome:
    outcome = Outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        retraining._gate(outcome, outcome.lines.append)
    return outcome


def _processes_in(project: Path) -> list[str]:
    """Every process that works in the project's folder, but for this one."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            works = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if works and Path(process.cwd()).is_relative_to(project):
                found.append(" ".join(process.cmdline()))
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("retraining") / "project"
    with pytest.MonkeyPatch.context() as patch:
        make_project(folder, patch)
        yield folder


@pytest.fixture(scope="module")
def faces() -> list[tuple[str, bytes]]:
    return some_faces(90)


@pytest.fixture(scope="module")
def story(project: Path, faces: list[tuple[str, bytes]]) -> dict[str, Week]:
    """Week after week; what happened in each."""
    done: dict[str, Week] = {}
    put(dict(faces[:60]), "photographs")
    done["first"] = _flow_losing_its_server(project)
    done["nothing"] = flow(project)
    # Good photographs come, and longer training is asked for; run after run is killed, each further on.
    put(dict(faces[60:80]))
    set_updates(60)
    done["better"] = flow(project, killed=[_killed(project, point) for point in KILLED])
    # A bad batch, twice over: damaged files, then photographs so dark that they are not like those trained on.
    put({f"bad/{i}.jpg": data[:700] for i, (_, data) in enumerate(faces[80:90])})
    done["bad"] = flow(project)
    promotion.rollback("lapcvae")
    done["rolled back"] = flow(project)
    set_updates(70)
    _ask_for_warm_start()
    killed = [_killed(project, KILLED_MOVING[0])]
    postponed = _gate_without_registry()
    killed += [_killed(project, point) for point in KILLED_MOVING[1:]]
    done["moved"] = flow(project, killed=killed, postponed=postponed)
    return done


def test_the_first_champion_is_decided_by_absolute_limits(story: dict[str, Week]) -> None:
    week = story["first"]
    assert week.record["status"] == "promoted"
    assert "absolute limits" in week.record["gate"]["reason"]
    assert (week.champion, week.previous) == (1, None)


def test_prefects_server_killed_amid_the_run_costs_its_page_only(story: dict[str, Week]) -> None:
    week = story["first"]
    assert week.extra["code"] == 0, week.extra["errors"][-3000:]
    assert "promoted; Prefect's server went away, so its page is missing" in week.extra["errors"]
    assert week.record["ran"][-1] == "register", "each stage ran, in this one run"


def test_dvc_sees_no_graph_but_the_projects_own(story: dict[str, Week]) -> None:
    from dvc.repo import Repo

    with Repo() as repo:
        assert {stage.path_in_repo.split("/")[0] for stage in repo.index.stages} == {"dvc.yaml", "data"}


def test_nothing_new_says_so_and_runs_no_stage(story: dict[str, Week]) -> None:
    week = story["nothing"]
    assert week.record["status"] == "nothing"
    assert week.record["ran"] == []
    assert "nothing new and nothing changed" in week.record["lines"][-1]
    assert week.champion == 1


@pytest.mark.parametrize("point", KILLED + KILLED_MOVING)
def test_a_run_killed_in_any_phase_leaves_no_process_and_no_stuck_lock(story: dict[str, Week], point: str) -> None:
    (kill,) = (k for k in story["better"].extra["killed"] + story["moved"].extra["killed"] if k.point == point)
    assert kill.code == -signal.SIGKILL, kill.said
    assert kill.left == []
    assert kill.champion == (3 if point == "enter:record" else 1)


def test_each_run_after_a_killed_one_knows_it_and_comes_further(story: dict[str, Week]) -> None:
    for week in ("better", "moved"):
        killed = story[week].extra["killed"]
        assert [kill.died for kill in killed] == ["none"] + [kill.phase for kill in killed[:-1]]


def test_the_run_after_the_killed_ones_finishes_their_work(story: dict[str, Week]) -> None:
    week = story["better"]
    assert week.record["status"] == "promoted"
    record = json.loads(Path("data/batches/0001.json").read_text())
    assert record["status"] == "taken"
    assert len(record["files"]) == 20
    assert len(list(Path("data/taken").glob("*.tar"))) == 1


def test_a_promotion_that_was_killed_is_done_by_the_next_run_on_the_same_footing(story: dict[str, Week]) -> None:
    week = story["moved"]
    assert week.record["status"] == "nothing", "killed as it wrote its record, with all done"
    assert (week.champion, week.previous) == (3, 1)
    tags = promotion.tags_of("lapcvae", 3)
    assert (tags[promotion.MOVE], tags["gate_against"]) == ("done", "1")
    assert "better at 95% confidence" in tags["gate_reason"]


def test_levels_begin_with_the_champions_weights_where_that_is_asked_for(story: dict[str, Week]) -> None:
    assert story["moved"].record["ran"] == [], "another champion since then makes no training necessary"
    assert {path.name for path in Path("data/warm_start").iterdir()} == {"README.md", "champion", "champion.dvc"}
    assert promotion.tags_of("lapcvae", 2)["warm_start"] == ""
    assert promotion.tags_of("lapcvae", 3)["warm_start"] == "lapcvae version 1"
    found = lineage.trace("lapcvae", "3")
    assert "warm start    lapcvae version 1" in found.text()
    client = open_client()
    assert "first weights: lapcvae version 1" in (client.get_model_version("lapcvae", "3").description or "")
    with tempfile.TemporaryDirectory() as scratch:
        champion = models.fetch("lapcvae", "1", Path(scratch))
        for level, folder in zip(("level1", "level2"), champion, strict=True):
            assert client.get_run(found.runs[level]).data.tags["warm_start"] == "lapcvae version 1"
            kept = f"data/warm_start/champion/{level}/weights.safetensors"
            assert json.loads(Path("models", level, "run.json").read_text())["inputs"][kept] == sha256_file(
                folder / "weights.safetensors"
            )


def test_without_the_registry_the_gate_is_postponed_and_the_next_run_holds_it(story: dict[str, Week]) -> None:
    away = story["moved"].extra["postponed"]
    assert away.status == "postponed"
    assert away.contest is None
    assert "the gate is left to the next run" in away.lines[-1]
    assert story["moved"].champion == 3


def test_the_tracked_runs_of_killed_processes_are_marked(story: dict[str, Week]) -> None:
    client = open_client()
    experiment = client.get_experiment_by_name("lapcvae")
    assert experiment is not None
    crashed = client.search_runs([experiment.experiment_id], "tags.crashed = 'true'")
    assert {run.info.status for run in crashed} == {"FAILED"}
    assert "gate" in {run.data.tags["kind"] for run in crashed}
    assert client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'") == []


def test_a_better_model_becomes_champion_and_the_old_one_previous(story: dict[str, Week]) -> None:
    week = story["better"]
    assert (week.champion, week.previous) == (2, 1)
    primary = week.record["gate"]["checks"][0]
    assert primary["measure"] == "rmse_posterior_mean"
    assert primary["interval"]["high"] < 0
    assert primary["interval"]["groups"] > 5


def test_the_gate_asks_the_distance_in_features_or_says_that_it_could_not(story: dict[str, Week]) -> None:
    asked = {check["measure"]: check for check in story["better"].record["gate"]["checks"]}
    if networks.open_network(torch.device("cpu")) is None:
        assert networks.ABSENT in story["better"].record["gate"]["absent"][trial.FEATURE_DISTANCE]
        assert trial.FEATURE_DISTANCE not in asked
    else:
        assert asked[trial.FEATURE_DISTANCE]["interval"]["groups"] > 5
        assert 0 < asked[trial.FEATURE_DISTANCE]["challenger"] < 2


def test_a_bad_batch_changes_nothing(story: dict[str, Week]) -> None:
    week = story["bad"]
    assert week.record["batch"]["status"] == "set aside"
    assert week.manifest == story["better"].manifest
    assert (week.champion, week.previous) == (2, 1)
    assert len(list(Path("data/set_aside/0002/photographs/bad").iterdir())) == 10


def test_a_rollback_stands(story: dict[str, Week]) -> None:
    week = story["rolled back"]
    assert week.record["status"] == "nothing"
    assert (week.champion, week.previous) == (1, None)


def test_the_test_set_never_changed(story: dict[str, Week]) -> None:
    assert len({week.frozen for week in story.values()}) == 1


def test_lineage_holds_both_ways(story: dict[str, Week]) -> None:
    found = lineage.trace("lapcvae", "2")
    client = open_client()
    assert client.get_run(found.run_id).data.tags["kind"] == "pipeline"
    assert found.data_digest == json.loads(Path("data/pyramid/pyramid.json").read_text())["data_digest"]
    assert lineage.made_of("lapcvae", found.data_digest) == [2, 3]
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    raw = next(out for out in lock["stages"]["download"]["outs"] if out["path"] == "data/raw")
    assert found.data["data/raw"] == raw["md5"]
    assert "data/taken" in found.data
    assert found.data["data/raw"] != lineage.trace("lapcvae", "1").data["data/raw"]
    assert found.parameters["levels.1.updates"] == "60"
    for level in ("level1", "level2"):
        run = client.get_run(found.runs[level])
        assert run.data.tags["kind"] == "level"
        assert run.data.params["training.updates"] == "60"


def test_mlflow_shows_champions_over_time_curves_pictures_and_parameters(story: dict[str, Week]) -> None:
    client = open_client()
    experiment = client.get_experiment_by_name("lapcvae")
    assert experiment is not None
    (history,) = client.search_runs([experiment.experiment_id], "tags.kind = 'history'")
    points = client.get_metric_history(history.info.run_id, "champion.rmse_posterior_mean")
    assert [point.step for point in points][:2] == [1, 2]
    assert {point.step for point in points} == {1, 2, 3}
    assert points[1].value < points[0].value
    query = "tags.kind = 'gate' and attributes.status = 'FINISHED'"
    gates = client.search_runs([experiment.experiment_id], query, order_by=["start_time ASC"])
    assert {run.data.tags["verdict"] for run in gates} == {"promoted"}
    last = {run.data.params["challenger"]: run.info.run_id for run in gates}
    assert set(last) == {"1", "2", "3"}
    for runs in (last.values(), [lineage.trace("lapcvae", version).runs["level1"] for version in last]):
        # What MLflow's page for comparing runs shows side by side: equal names at the top of each run's artifacts.
        tops = [{file.path for file in client.list_artifacts(run) if not file.is_dir} for run in runs]
        assert any(name.endswith(".png") for name in set.intersection(*tops)), tops
    curves = {run: client.get_metric_history(run, "val_loss_nats") for run in runs}
    assert len(curves) == 3
    assert all(len(points) > 1 for run, points in list(curves.items())[1:])
    asked = [client.get_run(lineage.trace("lapcvae", version).run_id).data.params for version in last]
    assert [params["levels.1.updates"] for params in asked] == ["3", "60", "70"]
    assert client.get_run(last["2"]).data.tags["rows_of_faces"] == "photograph then champion then challenger"
    kept = {file.path for file in client.list_artifacts(last["2"], "gate")}
    assert {"gate/card.md", "gate/frozen_test.csv", "gate/0001.json"} <= kept
    assert "# lapcvae, version 2: promoted" in (client.get_model_version("lapcvae", "2").description or "")
    running = client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'")
    assert running == []


def test_a_changed_test_set_is_refused(story: dict[str, Week], monkeypatch: pytest.MonkeyPatch) -> None:
    from lapcvae.errors import DataError
    from pipelines import contest

    whole = Path("data/frozen_test.csv").read_text()
    try:
        Path("data/frozen_test.csv").write_text("\n".join(whole.splitlines()[:-1]) + "\n")
        with pytest.raises(DataError, match="not the test set that lapcvae's versions were measured on"):
            contest._test_set("lapcvae")
        Path("data/frozen_test.csv").unlink()
        with pytest.raises(DataError, match="bring it back"):
            contest._test_set("lapcvae")
    finally:
        Path("data/frozen_test.csv").write_text(whole)


def _with_drift(**changes: Any) -> RetrainConfig:
    config = load(RetrainConfig, "retrain")
    return replace(config, drift=replace(config.drift, min_photographs=5, **changes))


def _examined(project: Path, config: RetrainConfig, photographs: dict[str, bytes]) -> tuple[Outcome, Any]:
    put(photographs)
    outcome = Outcome()
    with journal.one_at_a_time("a test"):
        return outcome, intake.examine(config, outcome, outcome.lines.append, reachable=True)


def test_a_batch_too_far_from_the_champions_training_data_is_set_aside_whole(
    story: dict[str, Week], project: Path, faces: list[tuple[str, bytes]]
) -> None:
    dark = {}
    for name, data in faces[80:90]:
        stream = io.BytesIO()
        Image.open(io.BytesIO(data)).point(lambda value: value * 0.35).save(stream, "PNG")
        dark[f"{name}.png"] = stream.getvalue()
    outcome, batch = _examined(project, _with_drift(measure="ks", notice=0.5, veto=0.8), dark)
    assert batch is None
    assert outcome.drift is not None
    assert outcome.drift.verdict == "veto", outcome.lines
    assert any(column.column.startswith("feature_") for column in outcome.drift.columns)
    assert outcome.batch is not None
    assert "too far from the champion's training data" in outcome.batch["reason"]
    assert len(list(Path(f"data/set_aside/{outcome.batch['number']}/photographs").rglob("*.png"))) == 10
    assert len(list(Path("data/taken").glob("*.tar"))) == 1
