import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lapcvae.errors import ConfigError
from lapcvae.registry import tracking
from lapcvae.registry.store import open_client

DIGEST = "0123456789abcdef" * 4


def test_child_holds_what_was_logged_and_parent_holds_all_parameters(project: Path) -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(picture).save("truth-at-5.png")
    with tracking.child_run(
        "level 3", "level", {"net": {"width": 8}, "crops": [1, 2]}, {"stage": "train@3"}, DIGEST
    ) as run:
        for step in (0, 10):
            run.log(step, {"rate_nats": 3.0 + step, "distortion_nats": 90.0 - step})
        run.picture("grid", picture)
        run.picture("truth", "truth-at-5.png")
        run.artifact("params.yaml", "settings")
        run.tag("note", "short")

    client = open_client()
    child = client.get_run(run.run_id)
    assert child.info.status == "FINISHED"
    assert child.info.run_name == "level 3"
    assert child.data.params == {"net.width": "8", "crops": "[1, 2]"}
    assert child.data.tags.items() >= {"kind": "level", "stage": "train@3", "note": "short"}.items()
    assert [(m.step, m.value) for m in client.get_metric_history(run.run_id, "rate_nats")] == [(0, 3.0), (10, 13.0)]
    assert {f.path for f in client.list_artifacts(run.run_id) if not f.is_dir} == {
        "grid.png",
        "truth.png",
    }
    kept = client.download_artifacts(run.run_id, "grid.png", str(project))
    assert np.array_equal(np.asarray(Image.open(kept)), picture)
    assert [f.path for f in client.list_artifacts(run.run_id, "settings")] == ["settings/params.yaml"]

    parent = client.get_run(child.data.tags["mlflow.parentRunId"])
    assert parent.info.status == "FINISHED"
    assert parent.data.params["levels.3.beta"] == "0.5"
    assert parent.data.params["seed"] == "0"
    for seen in (child, parent):
        assert seen.data.tags["data_digest"] == DIGEST
        assert seen.inputs.dataset_inputs[0].dataset.digest == DIGEST[:36]


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_run_ends_as_its_body_does(project: Path, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), tracking.child_run("level 3", "level", {}) as run:
        raise error
    client = open_client()
    child = client.get_run(run.run_id)
    assert child.info.status == status
    assert client.get_run(child.data.tags["mlflow.parentRunId"]).info.status == status


def test_parent_is_running_while_a_child_is(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPCVAE_PIPELINE_RUN", "flow 1")
    client = open_client()
    with tracking.child_run("level 3", "level", {}) as first:
        parent = client.get_run(first.run_id).data.tags["mlflow.parentRunId"]
    assert client.get_run(parent).info.status == "FINISHED"
    with tracking.child_run("level 2", "level", {}) as second:
        second.wait()
        assert client.get_run(parent).info.status == "RUNNING"
        assert client.get_run(second.run_id).data.tags["mlflow.parentRunId"] == parent
    assert client.get_run(parent).info.status == "FINISHED"

    monkeypatch.setenv("LAPCVAE_PIPELINE_RUN", "flow 2")
    with tracking.child_run("level 2", "level", {}) as third:
        assert client.get_run(third.run_id).data.tags["mlflow.parentRunId"] != parent


def test_finish_pipeline_logs_flat_metrics_reports_and_tags(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPCVAE_PIPELINE_RUN", "flow 1")
    with tracking.child_run("level 3", "level", {}) as child:
        pass
    Path("index.html").write_text("<p>report</p>")
    metrics = {"lapcvae": {"rmse_mean": 17.5, "levels": {"3": {"kl_nats": 4}}}, "device": "cpu"}
    parent = tracking.finish_pipeline(metrics, [Path("index.html")], {"level3": child.run_id, "vae": ""}, DIGEST)
    client = open_client()
    assert client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent
    run = client.get_run(parent)
    assert run.data.metrics == {"lapcvae.rmse_mean": 17.5, "lapcvae.levels.3.kl_nats": 4.0}
    assert run.data.tags["run.level3"] == child.run_id
    assert (
        f"- [level3](#/experiments/{run.info.experiment_id}/runs/{child.run_id})"
        in run.data.tags["mlflow.note.content"]
    )
    assert run.info.status == "FINISHED"
    assert [f.path for f in client.list_artifacts(parent, "reports")] == ["reports/index.html"]


def test_training_goes_on_without_mlflow(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    trained = []
    with tracking.child_run("level 3", "level", {"a": 1}) as run:
        for step in range(3):
            run.log(step, {"rate_nats": 1.0})
            trained.append(step)
        run.picture("grid", np.zeros((2, 2, 3), np.uint8))
        run.tag("a", "b")
    assert trained == [0, 1, 2]
    assert run.run_id == ""
    assert tracking.finish_pipeline({"a": 1.0}, [], {}) == ""
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: MLflow")]
    assert len(warnings) == 2  # one for the child, one for the finish, though eight calls were lost
    assert "http://127.0.0.1:9 is away" in warnings[0]


def test_store_lost_amid_training_stops_the_log_and_not_the_training(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = []
    with tracking.child_run("level 3", "level", {}) as run:
        run.wait()
        with closing(sqlite3.connect("mlflow.db")) as database:
            database.execute("DROP TABLE metrics")
        for step in range(3):
            run.log(step, {"rate_nats": 1.0})
            trained.append(step)
    assert trained == [0, 1, 2]
    assert run.run_id
    assert capsys.readouterr().err.count("warning: MLflow") == 1
    with closing(sqlite3.connect("mlflow.db")) as database:
        rows = database.execute("SELECT status FROM runs WHERE run_uuid = ?", (run.run_id,)).fetchall()
    assert rows == [("FINISHED",)]


def test_wrong_tracking_section_is_an_error_that_names_it(project: Path) -> None:
    Path("params.yaml").write_text("tracking: {experimnt: faces, model: lapcvae, primary_metric: a}\n")
    with (
        pytest.raises(ConfigError, match=r"tracking\.experimnt.*did you mean `experiment`"),
        tracking.child_run("level 3", "level", {}),
    ):
        pass
