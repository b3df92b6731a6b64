"""Retraining while its parts are away, full, or gone: what is postponed, what is refused, what comes of it later."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from lapcvae.data.taken import batches
from lapcvae.errors import PipelineError
from lapcvae.io.atomic import sha256_file
from lapcvae.registry import lineage, promotion, spool
from lapcvae.registry.store import open_client
from pipelines import contest, dvc_runner
from pipelines.flows import retrain as retrain_flow
from tests.pipeline.small_retraining import change, make_project, put, retrain, run_stage, set_updates, some_faces

ROOT = Path(__file__).parents[2]
AWAY = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


@dataclass
class Step:
    """What a retraining came to, and what stood there after it."""

    record: dict[str, Any]
    champion: int | None
    current: int | None
    manifest: str
    taken: list[str]
    weights: dict[str, str]
    extra: dict[str, Any] = field(default_factory=dict)


def _step(**extra: Any) -> Step:
    now = promotion.standing("lapcvae")
    return Step(
        json.loads(Path("reports/retraining.json").read_text()), now.champion, now.current,
        sha256_file(contest.MANIFEST) if contest.MANIFEST.exists() else "", [path.name for path in batches()],
        {folder.name: sha256_file(folder / "weights.safetensors") for folder in contest.level_folders()}, extra,
    )  # fmt: skip


def _ask(**retraining: Any) -> None:
    change(lambda params: params["retrain"].update(retraining))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("faults") / "project"
    with pytest.MonkeyPatch.context() as patch:
        make_project(folder, patch)
        yield folder


@pytest.fixture(scope="module")
def story(project: Path, prefect_server: None) -> dict[str, Step]:
    """One thing after another goes wrong."""
    faces, done = some_faces(90), {}
    put(dict(faces[:60]), "photographs")
    assert retrain_flow.retrain(retries=0) == "promoted"
    done["first"] = _step()
    # Few photographs come, then others that are unlike the first, amid whose retraining the power fails.
    _ask(min_new=50)
    put(dict(faces[60:70]))
    retrain("few")
    done["few"] = _step()
    _ask(drift={"min_photographs": 5, "measure": "ks", "notice": 0.01, "veto": 1.0})
    put(dict(faces[70:80]))
    killed = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed_run.py")), "enter:train"],
        env=os.environ | {"PYTHONPATH": f"{project}:{project}/src"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    retrain("after the kill")
    done["drifted"] = _step(killed=killed)
    # MLflow is away while level 1 trains longer, and comes back.
    set_updates(40, "1")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWAY.items():
            patch.setenv(name, value)
        retrain("without mlflow")
        record = json.loads(Path("reports/retraining.json").read_text())
    done["away"] = _step(record=record, spools=len(list(spool.folder().iterdir())))
    retrain("with mlflow again")
    done["back"] = _step()
    set_updates(3, "1")
    retrain("changed back")
    done["changed back"] = _step(two=lineage.trace("lapcvae", "2"), three=lineage.trace("lapcvae", "3"))
    # A batch with which the data set would break its limits; then a good one, and no space for it.
    _limit(len(_accepted()))
    put(dict(faces[80:85]))
    retrain("too many")
    done["too many"] = _step()
    _limit(1000)
    _ask(min_new=1)
    put(dict(faces[85:90]))
    retrain_without_space()
    done["full"] = _step()
    retrain("space again")
    done["space"] = _step()
    # Somebody deletes every version.
    for version in open_client().search_model_versions("name = 'lapcvae'"):
        open_client().delete_model_version("lapcvae", version.version)
    done["deleted"] = _step()
    retrain("after the deletion")
    done["registered again"] = _step()
    return done


def retrain_without_space() -> None:
    """While faces are aligned, no file may grow as large as that of the faces."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(stage: str, deadline: float) -> None:
        if stage == "align":
            resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            run_stage(stage, deadline)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with pytest.raises(PipelineError, match=r"align: error: .* could not be kept"):
        retrain("no space", limited)


def _accepted() -> list[str]:
    from lapcvae.data.manifest import read_manifest

    return [row.name for row in read_manifest(contest.MANIFEST) if row.status == "accepted"]


def _limit(photographs: int) -> None:
    change(lambda params: params["validate"]["totals"]["accepted"].update(high=photographs))


def test_prefects_page_has_the_table_and_the_pictures(story: dict[str, Step]) -> None:
    with get_client(sync_client=True) as client:
        found = {artifact.key: artifact for artifact in client.read_artifacts()}
    text = str(found["retraining"].data)
    assert text.startswith("**promoted**")
    assert "| rmse_posterior_mean |" in text
    assert "version 1: promoted" in text
    assert found["faces"].type == "image"
    assert str(found["faces"].data).startswith("data:image/")
    assert found["faces"].flow_run_id == found["retraining"].flow_run_id


def test_few_photographs_are_taken_in_and_wait(story: dict[str, Step]) -> None:
    few = story["few"]
    assert few.record["status"] == "waiting"
    assert "10 new photographs since the last training; the next is at 50" in few.record["lines"][-1]
    assert len(few.taken) == 1
    assert few.weights == story["first"].weights


def test_drift_is_trained_on_at_once_also_by_the_run_after_a_killed_one(story: dict[str, Step]) -> None:
    drifted = story["drifted"]
    assert drifted.extra["killed"].returncode == -9, drifted.extra["killed"].stderr
    assert drifted.record["batch"] is None, "the killed run had taken it in"
    assert "drift: trained on at once" in drifted.record["lines"]
    assert drifted.record["status"] in ("promoted", "rejected")
    assert drifted.current == 2


def test_without_mlflow_training_is_done_and_the_gate_is_left_to_the_next_run(story: dict[str, Step]) -> None:
    away, back = story["away"], story["back"]
    assert away.extra["record"]["status"] == "postponed"
    assert away.extra["record"]["ran"][-2:] == ["train@1", "evaluate"]
    assert away.weights["level1"] != story["drifted"].weights["level1"]
    assert away.extra["spools"] == 1
    assert (away.champion, away.current) == (story["drifted"].champion, 2)
    assert any("1 runs that were kept back while it was away are logged now" in line for line in back.record["lines"])
    assert back.record["status"] in ("promoted", "rejected")
    assert back.record["ran"][-1] == "register"
    assert back.weights == away.weights
    assert back.current == 3


def test_lineage_holds_for_what_was_logged_later_and_for_what_dvc_kept(story: dict[str, Step]) -> None:
    """Level 2 was not trained again for version 3, and level 1 of it was trained while MLflow was away."""
    client = open_client()
    two, three = (story["changed back"].extra[version] for version in ("two", "three"))
    assert three.runs["level2"] == two.runs["level2"]
    assert three.runs["level1"] != two.runs["level1"]
    run = client.get_run(three.runs["level1"])
    assert (run.info.status, run.data.params["training.updates"]) == ("FINISHED", "40")
    assert client.get_metric_history(run.info.run_id, "rate_nats")
    assert three.data_digest == two.data_digest
    assert two.siblings == (3,)


def test_what_is_changed_back_is_restored_and_is_the_version_that_it_was(story: dict[str, Step]) -> None:
    back = story["changed back"]
    assert back.weights == story["drifted"].weights
    assert back.current == 2
    assert back.champion == story["back"].champion


def test_a_batch_that_breaks_the_data_sets_limits_is_set_aside_whole(story: dict[str, Step]) -> None:
    step = story["too many"]
    assert step.record["batch"]["status"] == "set aside"
    assert "with it the data set breaks its limits" in step.record["batch"]["reason"]
    assert step.manifest == story["changed back"].manifest
    assert step.taken == story["changed back"].taken
    assert len(list(Path("data/set_aside").rglob("*.jpg"))) == 5
    assert step.champion == story["changed back"].champion


def test_a_full_disk_costs_no_batch(story: dict[str, Step]) -> None:
    full, space = story["full"], story["space"]
    assert full.record["status"] == "failed"
    assert full.taken == story["too many"].taken
    assert full.champion == story["too many"].champion
    assert space.record["batch"]["status"] == "taken"
    assert len(space.taken) == len(full.taken) + 1
    assert len(list(Path("data/set_aside").rglob("*.jpg"))) == 5, "those that broke the limits, and no others"


def test_models_whose_versions_were_all_deleted_are_registered_again(story: dict[str, Step]) -> None:
    assert story["deleted"].champion is None
    step = story["registered again"]
    assert step.record["ran"][-1] == "register"
    assert step.record["status"] == "promoted"
    assert step.champion == step.current
    assert step.champion is not None
    assert lineage.trace("lapcvae", "champion").runs.keys() == {"level1", "level2"}


def test_by_settings_alone_the_next_retraining_moves_to_postgresql_and_s3(
    story: dict[str, Step], database: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is trained: the models that are here are registered there, and what DVC keeps is pushed."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "MLFLOW_TRACKING_URI": f"postgresql+psycopg2://{database}/mlflow", "MLFLOW_S3_ENDPOINT_URL": store,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": "s3://mlflow/team", "LAPCVAE_DVC_REMOTE": "s3://dvc/team",
        "AWS_ACCESS_KEY_ID": "lapcvae", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    change(lambda params: params["tracking"].update(model="team", experiment="team"))
    before = story["registered again"].weights
    outcome = retrain("the remote is away")
    assert outcome.status == "promoted"
    assert outcome.ran, "to register"
    assert _step().weights == before
    assert "remote: s3://dvc/team is away, the next run pushes" in outcome.lines[-1]
    version = open_client().get_model_version_by_alias("team", "champion")
    assert version.source.startswith("s3://mlflow/team/")
    monkeypatch.setenv("AWS_ENDPOINT_URL", store)
    assert retrain("the remote is back").status == "nothing"
    weights = Path("models/level1/weights.safetensors")
    whole = weights.read_bytes()
    for file in Path(".dvc/cache").rglob("*"):
        if file.is_file():
            file.unlink()
    weights.unlink()
    dvc_runner.push_or_pull("pull", targets=[str(weights)])
    assert weights.read_bytes() == whole
