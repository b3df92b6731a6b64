import json
from pathlib import Path

import pytest

from lapcvae.errors import ConfigError, RegistryError
from lapcvae.models.level import LevelScale
from lapcvae.models.settings import ModelSettings
from lapcvae.models.storage import Description, save_level
from lapcvae.registry import tracking
from lapcvae.registry.store import open_client
from lapcvae.training.result import TrainingResult
from pipelines.records import write_records
from pipelines.stages import register

PARAMS = """\
seed: 0
baselines: {vae: {updates: 5}}
end_to_end: {}
tracking: {experiment: faces, model: lapcvae, primary_metric: lapcvae.rmse.mean}
"""
BEGUN = {"level1": "lapcvae version 7", "vae": ""}


@pytest.fixture
def trained(project: Path) -> dict[str, str]:
    """A project as evaluate leaves it; which run made which model. The baseline's training was not logged."""
    (project / "params.yaml").write_text(PARAMS)
    with tracking.child_run("level 1", "level", {}) as run:
        pass
    settings = ModelSettings(width=8, latent="vector", latent_size=2)
    zero = (0.0, 0.0, 0.0)
    made_by = {"level1": run.run_id, "vae": ""}
    for name, made in made_by.items():
        description = Description(1, 1, 8, "burt", settings, LevelScale(zero, 0.2, zero, 0.2))
        save_level(description.build(), description, project / "models" / name)
        write_records(project / "models" / name, TrainingResult([{"update": 1.0}], 1.0, 1.0, 1), made, {}, BEGUN[name])
    for name, content in {
        "data/pyramid/pyramid.json": json.dumps({"data_digest": "ab" * 32}),
        "reports/metrics.json": json.dumps({"lapcvae": {"rmse": {"mean": 17.5}}, "vae": {"rmse": {"mean": 20.25}}}),
        "reports/index.html": "<p>report</p>",
    }.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(content)
    return made_by


def test_version_metrics_report_and_makers_are_on_record(trained: dict[str, str]) -> None:
    assert register.work() == "lapcvae version 1 (new), lapcvae.rmse.mean 17.5"
    record = json.loads(Path("reports/registered.json").read_text())
    client = open_client()
    parent = client.get_run(record["run_id"])
    assert record == {"name": "lapcvae", "version": 1, "run_id": parent.info.run_id}
    assert parent.data.metrics == {"lapcvae.rmse.mean": 17.5, "vae.rmse.mean": 20.25}
    assert parent.data.tags["run.level1"] == trained["level1"]
    assert parent.data.tags["run.vae"] == ""
    reports = {file.path for file in client.list_artifacts(parent.info.run_id, "reports")}
    assert reports == {"reports/metrics.json", "reports/index.html"}
    version = client.get_model_version("lapcvae", "1")
    assert version.tags["primary_value"] == "17.5"
    assert version.tags["data_digest"] == "ab" * 32
    assert len(version.tags["params_digest"]) == 64
    assert version.tags["run.level1"] == trained["level1"]
    assert version.tags["warm_start"] == "lapcvae version 7"

    assert register.work() == "lapcvae version 1 (known already), lapcvae.rmse.mean 17.5"
    assert json.loads(Path("reports/registered.json").read_text()) == record


def test_a_record_from_before_warm_starts_were_noted_is_read(trained: dict[str, str]) -> None:
    for name in trained:
        path = Path("models", name, "run.json")
        record = json.loads(path.read_text())
        del record["warm_start"]
        path.write_text(json.dumps(record))
    assert register.work().startswith("lapcvae version 1 (new)")
    assert open_client().get_model_version("lapcvae", "1").tags["warm_start"] == ""


def test_unknown_primary_metric_is_named(trained: dict[str, str]) -> None:
    Path("params.yaml").write_text(PARAMS.replace("lapcvae.rmse.mean", "lapcvae.rsme.mean"))
    with pytest.raises(ConfigError, match=r"tracking\.primary_metric.*lapcvae\.rsme\.mean"):
        register.work()


def test_nothing_is_taken_for_registered_while_mlflow_is_away(
    trained: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match=r"http://127\.0\.0\.1:9 is away"):
        register.work()
    assert not Path("reports/registered.json").exists()
