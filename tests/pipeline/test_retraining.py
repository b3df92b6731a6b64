"""The real flow, small, over some weeks: real photographs, DVC, MLflow, and Prefect around it."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml

from lapcvae.evaluation import networks, trial
from lapcvae.io.atomic import sha256_file
from lapcvae.registry import lineage, promotion
from lapcvae.registry.store import open_client
from pipelines import retraining, weeks

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data/samples/lfw-sample.tgz"
SMALL: dict[str, Any] = {
    "align": {"size_px": 32},
    "split": {"val_share": 0.2, "test_share": 0.25},
    "validate": {"totals": {"reject_share": {"high": 0.5}, "split_error": {"high": 1}}},
    "model": {"width": 8},
    "training": {"batch": 8, "warmup_updates": 1, "log_interval": 10},
    "evaluation": {"samples": 4},
    "executor": {"workers": 1},
    "retrain": {"intake": {"quiet_s": 0}, "drift": {"min_photographs": 8, "notice": 6, "veto": 9}},
    "gate": {
        "margins": {
            "bits_per_dim": 5, "dissimilarity": 1, "sharpness_error": 9, "inactive_share": 1,
            "feature_distance_mobilenetv2": 4,
        },
        "max_latency_ratio": 100, "limits": {"rmse_posterior_mean": 200, "bits_per_dim": 50, "inactive_share": 1},
    },
}  # fmt: skip


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
    said, errors = done.communicate(timeout=500)
    assert done.returncode == 0, said + errors
    return _week(time.monotonic() - start, extra | {"said": said})


def _flow(project: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PYTHONPATH": f"{project}:{project}/src"}
    command = [sys.executable, "-m", "pipelines.flows.retrain"]
    return subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _week(seconds: float, extra: dict[str, Any]) -> Week:
    now = promotion.standing("lapcvae")
    record = json.loads(Path("reports/retraining.json").read_text())
    return Week(
        record, now.champion, now.previous, sha256_file(Path("data/aligned/manifest.csv")),
        sha256_file(Path("data/frozen_test.csv")), seconds, extra,
    )  # fmt: skip


def _set_updates(updates: int) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    for level in params["levels"].values():
        level["updates"] = updates
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def _put(project: Path, faces: dict[str, bytes]) -> None:
    for name, data in faces.items():
        path = project / "data/inbox" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("retraining") / "project"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "LAPCVAE_PIPELINE_RUN", "LAPCVAE_RUNNER", "LAPCVAE_GATED"):
            patch.delenv(name, raising=False)
        patch.chdir(ROOT)
        weeks._make_project(folder, SMALL)
        patch.chdir(folder)
        params = yaml.safe_load(Path("params.yaml").read_text())
        params["levels"] = {
            "2": {"after": "data/pyramid/pyramid.json", "updates": 3, "model": {"latent_size": 16, "latent": "vector"}},
            "1": {"after": "data/rebuilt/level2", "updates": 3, "model": {"latent_size": 2}},
        }
        Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        yield folder


@pytest.fixture(scope="module")
def faces() -> list[tuple[str, bytes]]:
    found = []
    with tarfile.open(SAMPLE) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None and len(found) < 90:
                found.append((member.name.partition("/")[2], stream.read()))
    return found


@pytest.fixture(scope="module")
def story(project: Path, faces: list[tuple[str, bytes]]) -> dict[str, Week]:
    """Week after week; what happened in each."""
    done: dict[str, Week] = {}
    for name, data in faces[:60]:
        (project / "photographs" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "photographs" / name).write_bytes(data)
    done["first"] = flow(project)
    done["nothing"] = flow(project)
    # Good photographs come, and longer training is asked for; the whole run is killed while it trains.
    _put(project, dict(faces[60:80]))
    _set_updates(60)
    killed = _flow(project)
    journal = project / retraining.SCRATCH / "run.json"
    while json.loads(journal.read_text())["phase"] != "stage train@1":
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.05)
    family = psutil.Process(killed.pid).children(recursive=True)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    orphans = psutil.wait_procs(family, timeout=60)[1]
    done["better"] = flow(project, orphans=orphans)
    # A bad batch, twice over: damaged files, then photographs so dark that they are not like those trained on.
    _put(project, {f"bad/{i}.jpg": data[:700] for i, (_, data) in enumerate(faces[80:90])})
    done["bad"] = flow(project)
    promotion.rollback("lapcvae")
    done["rolled back"] = flow(project)
    return done


def test_the_first_champion_is_decided_by_absolute_limits(story: dict[str, Week]) -> None:
    week = story["first"]
    assert week.record["status"] == "promoted"
    assert "absolute limits" in week.record["gate"]["reason"]
    assert (week.champion, week.previous) == (1, None)


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


def test_a_killed_run_leaves_no_orphan_and_the_next_finishes_its_work(story: dict[str, Week]) -> None:
    week = story["better"]
    assert week.extra["orphans"] == []
    assert week.record["status"] == "promoted"
    record = json.loads(Path("data/batches/0001.json").read_text())
    assert record["status"] == "taken"
    assert len(record["files"]) == 20


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
    assert lineage.made_of("lapcvae", found.data_digest) == [2]
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
    assert [point.step for point in points] == [1, 2]
    assert points[1].value < points[0].value
    gates = client.search_runs([experiment.experiment_id], "tags.kind = 'gate'", order_by=["start_time ASC"])
    assert [run.data.tags["verdict"] for run in gates] == ["promoted", "promoted"]
    pictures = [file.path for file in client.list_artifacts(gates[1].info.run_id, "pictures")]
    assert pictures == ["pictures/photograph_then_champion_then_challenger.png"]
    kept = {file.path for file in client.list_artifacts(gates[1].info.run_id, "gate")}
    assert {"gate/card.md", "gate/frozen_test.csv", "gate/0001.json"} <= kept
    assert "# lapcvae, version 2: promoted" in client.get_model_version("lapcvae", "2").description
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
