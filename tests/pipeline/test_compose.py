"""compose.yaml: what its containers would run is run here, against a real PostgreSQL and a real S3 store."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from lapcvae.registry import models, tracking
from lapcvae.registry.store import open_client
from tests.pipeline import backends

ROOT = Path(__file__).parents[2]
PARAMS = "seed: 0\ntracking: {experiment: composed, model: composed, primary_metric: a.b}\n"
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]


def _here(text: str, database: str) -> str:
    """A setting of compose.yaml with its defaults filled in, and this machine's database in place of its own."""
    filled = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    assert "${" not in filled, text
    return re.sub(r"lapcvae:[\w-]+@postgres/", f"{database}/", filled)


@contextmanager
def _served(name: str, database: str, store: str, options: dict[str, str], health: str) -> Iterator[str]:
    """A service's own command with its own environment; yields its address. `options` replace those of a container.

    The store stands in as a proxy: to the service alone, and to none of its clients, it has the name of compose.yaml.
    """
    service, port = SERVICES[name], backends.free_port()
    command = [_here(word, database) for word in service["command"]]
    command = [options.get(word, word).replace("PORT", str(port)) for word in command]
    settings = {key: _here(str(value), database) for key, value in service["environment"].items()}
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PREFECT_"))}
    proxy = {"HTTP_PROXY": store, "NO_PROXY": "127.0.0.1"}
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=environment | settings | proxy | {"PREFECT_SERVER_API_PORT": str(port)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 240
        while True:
            try:
                httpx.get(address + health, trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, f"{name} ended by itself"
                assert time.monotonic() < until, f"{name} does not answer"
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)


def test_mlflows_server_keeps_runs_in_postgresql_and_files_in_s3(
    database: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "LAPCVAE_PIPELINE_RUN", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "params.yaml").write_text(PARAMS)
    monkeypatch.chdir(tmp_path)
    level = tmp_path / "level1"
    level.mkdir()
    for name in models.FILES:
        (level / name).write_text(name)
    options = {"--host=0.0.0.0": "--host=127.0.0.1", "--port=5000": "--port=PORT"}
    allowed = next(word for word in SERVICES["mlflow"]["command"] if word.startswith("--allowed-hosts"))
    options[allowed] = allowed.replace("5000", "PORT")
    with _served("mlflow", database, store, options, "/health") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with tracking.child_run("level 1", "level", {"a": 1}) as run:
            run.log(0, {"rate_nats": 1.5})
        models.register("composed", [level], run.run_id, {"data_digest": "ab"})
        version = open_client().get_model_version_by_alias("composed", "champion")
        assert version.source.startswith("mlflow-artifacts:/"), "through the server: people need no key of the store"
        assert (models.fetch("composed", "champion", tmp_path / "fetched")[0] / models.FILES[0]).exists()
    listed = httpx.get(f"{store}/mlflow?list-type=2", trust_env=False).text
    assert "weights.safetensors" in listed
    assert not (tmp_path / "mlartifacts").exists()


def test_prefects_server_answers(database: str, store: str) -> None:
    with _served("prefect", database, store, {"0.0.0.0": "127.0.0.1"}, "/api/health") as address:
        assert httpx.get(f"{address}/api/admin/version", trust_env=False).json()
