"""PostgreSQL and S3 by settings in the environment alone: a registry, a remote, and Prefect's own database."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lapcvae.registry import models, promotion, spool, tracking
from lapcvae.registry.store import open_client
from pipelines import dvc_runner

ROOT = Path(__file__).parents[2]
PARAMS = "seed: 0\ntracking: {experiment: faces, model: lapcvae, primary_metric: a.b}\n"


@pytest.fixture
def settings(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DVC_ROOT", "LAPCVAE_PIPELINE_RUN", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "lapcvae", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": store, "MLFLOW_S3_ENDPOINT_URL": store, "MLFLOW_DEFAULT_ARTIFACT_ROOT": "s3://mlflow/runs",
        "LAPCVAE_DVC_REMOTE": "s3://dvc/store",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)


def test_runs_and_models_live_in_postgresql_and_s3(
    settings: None, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql+psycopg2://{database}/mlflow")
    level = tmp_path / "level1"
    level.mkdir()
    for seed in (1, 2):
        for name in models.FILES:
            (level / name).write_text(f"{name} {seed}")
        with tracking.child_run("level 1", "level", {"a": seed}) as run:
            run.log(0, {"rate_nats": 1.5})
        models.register("lapcvae", [level], run.run_id, {"data_digest": "ab"}, crown_first=False)
        promotion.promote("lapcvae", seed, "better")
    assert run.run_id
    assert not list(spool.folder().glob("*")) if spool.folder().exists() else True
    client = open_client()
    assert client.get_model_version("lapcvae", "2").source.startswith("s3://mlflow/runs/faces/")
    fetched = models.fetch("lapcvae", "champion", tmp_path / "fetched")
    assert (fetched[0] / models.FILES[0]).read_text() == f"{models.FILES[0]} 2"
    assert promotion.rollback("lapcvae") == (2, 1)
    assert not (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / "mlartifacts").exists()


def test_what_dvc_keeps_goes_to_s3_and_comes_back(settings: None, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
    photographs = tmp_path / "data" / "taken" / "0001-00.tar"
    photographs.parent.mkdir(parents=True)
    photographs.write_bytes(b"photographs" * 1000)
    dvc_runner.add(photographs.relative_to(tmp_path))
    dvc_runner.push_or_pull("push")
    photographs.unlink()
    for file in (tmp_path / ".dvc/cache").rglob("*"):
        if file.is_file():
            file.chmod(0o644)
            file.unlink()
    dvc_runner.restore(photographs.relative_to(tmp_path))
    assert photographs.read_bytes() == b"photographs" * 1000


def test_prefect_keeps_its_runs_in_postgresql(database: str, tmp_path: Path) -> None:
    program = (
        "import pipelines.flows\nfrom prefect import flow\n"
        "@flow(name='kept')\ndef kept(): return 1\n"
        "kept()"
    )  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{database}/prefect",
        "PREFECT_HOME": str(tmp_path / "home"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
    }
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
    import psycopg2

    user, _, place = database.partition("@")
    host, _, port = place.partition(":")
    connection = psycopg2.connect(host=host, port=port, user=user, dbname="prefect")
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT flow.name, run.state_type::text FROM flow_run run JOIN flow ON flow.id = run.flow_id")
        assert cursor.fetchall() == [("kept", "COMPLETED")]
    finally:
        connection.close()
    assert not list((tmp_path / "home").glob("*.db"))
