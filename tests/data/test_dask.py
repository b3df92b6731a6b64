"""The shards on a real Dask cluster of two workers, known by its address: the same bytes as on local cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lapcvae.data.executor import ExecutorConfig, open_executor
from lapcvae.errors import ConfigError
from lapcvae.io.atomic import sha256_file
from tests.data.flow import look_and_align
from tests.data.workers import minus_one, square

TOP = Path(__file__).parents[2]
pytest.importorskip("distributed", reason="the extra `dask` is not installed")


def start(*arguments: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(TOP), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]]
    return subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, start_new_session=True)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler and two workers, as processes of their own."""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    common = ("--scheduler-file", str(file))
    processes = [start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", *common)]
    for _ in range(600):
        if file.exists():
            break
        time.sleep(0.1)
    options = ("--nthreads", "1", "--nworkers", "2", "--no-dashboard", "--local-directory", str(folder))
    processes.append(start("dask_worker", *common, *options))
    import distributed

    with distributed.Client(scheduler_file=str(file), set_as_default=False, timeout=60) as client:
        client.wait_for_workers(2, timeout=120)
        yield client.scheduler.address
    for process in processes:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def test_the_same_bytes_as_on_local_cores(
    address: str, faces: dict[str, bytes], pack: Callable[..., Path], tmp_path: Path
) -> None:
    raw = pack(faces)
    for name, executor in (("here", ExecutorConfig("processes", 1)), ("there", ExecutorConfig("dask", 0, address))):
        look_and_align(raw, tmp_path / name, executor)
    for file in ("landmarks.csv", "aligned/images.npy", "aligned/manifest.csv"):
        assert sha256_file(tmp_path / "here" / file) == sha256_file(tmp_path / "there" / file)


def test_an_item_that_kills_its_worker_costs_only_itself(address: str) -> None:
    with open_executor(ExecutorConfig("dask", 2, address)) as executor:
        found = list(executor.run(square, range(30, 45), 4, minus_one))
    assert found == [-1 if i == 37 else i * i for i in range(30, 45)]


def test_no_scheduler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapcvae.data.dask_executor._CONNECT_S", 1)
    with pytest.raises(ConfigError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        open_executor(ExecutorConfig("dask", 0, "tcp://127.0.0.1:9"))
