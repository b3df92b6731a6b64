"""Training that is killed, starved of disk, or finds its checkpoints damaged ends as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from tests.faults.training_process import LEVELS, ROOT, left, make_project, read_params, start, write_params

KILLS = 30
PLACES = ("among updates", "writing", "between levels", "anywhere")


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAPCVAE_PIPELINE_RUN", "faults")
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A project in which nothing was ever stopped, and what it left."""
    project = make_project(tmp_path_factory.mktemp("unbroken"))
    assert _ends(project) == 0, (project / "said").read_text()
    assert not list((project / ".cache/training").glob("*/*")), "checkpoints go once a training is done"
    return project, left(project)


@pytest.fixture
def unbroken(template: tuple[Path, dict[str, str]]) -> dict[str, str]:
    """Digests of what a training that was never stopped leaves."""
    return template[1]


@pytest.fixture
def project(template: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    """The same project before training."""
    for name in ("params.yaml", "mlflow.db"):
        shutil.copy(template[0] / name, tmp_path)
    shutil.copytree(template[0] / "data/pyramid", tmp_path / "data/pyramid")
    return tmp_path


def _ends(project: Path, levels: tuple[str, ...] = LEVELS) -> int | None:
    process = start(project, levels)
    process.join(60)
    return process.exitcode


def _checkpoints(project: Path, level: str = "2") -> list[Path]:
    """Those on the disk, the oldest first."""
    return sorted((project / f".cache/training/level{level}").glob("*/*.json"))


def _said(project: Path) -> str:
    return (project / "said").read_text()


def _stop(project: Path, signum: int, updates: int = 6) -> int | None:
    """Send a signal once level 2 has a checkpoint after `updates` updates; the exit code."""
    process = start(project)
    _wait(lambda: any(int(path.stem[3:12]) >= updates for path in _checkpoints(project)), process.is_alive)
    assert process.pid is not None
    os.kill(process.pid, signum)
    process.join(60)
    return process.exitcode


def _wait(met: Callable[[], bool], alive: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not met() and alive() and time.monotonic() < deadline:
        time.sleep(0.0005)


def _writing(project: Path) -> bool:
    """Whether a checkpoint, a model or rebuilt images are being written."""
    places = ((".cache/training", "*/*/.*.partial"), ("models", ".*.partial"), ("data/rebuilt", ".*.partial"))
    return any(
        next((project / folder).glob(pattern), None) for folder, pattern in places if (project / folder).exists()
    )


def _remove_results(project: Path) -> None:
    for folder in ("done", "models", "data/rebuilt"):
        shutil.rmtree(project / folder)


def test_killed_at_random_moments(project: Path, unbroken: dict[str, str]) -> None:
    """At least 30 times: among updates, while something is written, between levels, anywhere at all (at the start)."""
    begun = time.monotonic()
    assert _ends(project) == 0, _said(project)
    whole = time.monotonic() - begun  # moments are drawn from what a run takes here, however slow that is
    _remove_results(project)
    seed = int.from_bytes(os.urandom(4))
    chance = random.Random(seed)
    kills: Counter[str] = Counter()
    finished = 0
    while kills.total() < KILLS or finished == 0 or min(kills[place] for place in PLACES) == 0:
        missing = [place for place in PLACES if kills.total() < KILLS or kills[place] == 0]
        if (project / "done/2").exists() and "between levels" in missing:
            missing.remove("between levels")  # that is over until the levels begin anew
        place = chance.choice(missing) if missing else ""  # nothing to kill for: let it end by itself
        before = {path.name for k in LEVELS for path in _checkpoints(project, k)}
        process = start(project)
        if place == "writing":
            time.sleep(chance.uniform(0, whole / 2))
            _wait(lambda: _writing(project), process.is_alive)
        elif place == "among updates":
            new = lambda: any(p.name not in before for k in LEVELS for p in _checkpoints(project, k))  # noqa: B023, E731
            _wait(new, process.is_alive)
            time.sleep(chance.uniform(0, 0.2))
        elif place == "between levels":
            _wait(lambda: (project / "models/level2").exists(), process.is_alive)
            time.sleep(chance.uniform(0, 0.1))
        elif place:
            time.sleep(chance.uniform(0, whole))
        if place and process.is_alive():
            process.kill()
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL), f"seed {seed}: {_said(project)}"
        if place == "between levels" and _checkpoints(project, "1"):
            place = "among updates"  # too late: the second level had begun
        kills[place] += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:
            assert left(project) == unbroken, f"seed {seed}, after {dict(kills)}"
            assert not [p for p in project.rglob("*.partial") if p.parent.name in ("models", "rebuilt")]
            finished += 1
            _remove_results(project)
    print(f"seed {seed}: {dict(kills)}, finished {finished} times")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(project: Path, unbroken: dict[str, str], signum: int) -> None:
    assert _stop(project, signum) == 128 + signum
    assert "stopped by SIG" in _said(project)
    assert "Traceback" not in _said(project)
    assert _checkpoints(project)[-1].stem.endswith("-stopped") or int(_checkpoints(project)[-1].stem[3:12]) % 3 == 0
    assert _ends(project) == 0
    assert "level2: going on from update" in _said(project)
    assert left(project) == unbroken
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    run = client.get_run(json.loads((project / "models/level2/run.json").read_text())["mlflow_run_id"])
    logged = [metric.step for metric in client.get_metric_history(run.info.run_id, "loss_nats")]
    assert logged == [*range(3, 40, 3), 40], "a run that went on has the whole curve"
    stopped = client.search_runs([run.info.experiment_id], "attributes.status = 'KILLED'")
    assert {found.info.run_name for found in stopped} >= {"level2"}


@pytest.mark.parametrize("damage", ["truncated", "one bit", "no state", "empty"])
def test_damaged_newest_checkpoint(project: Path, unbroken: dict[str, str], damage: str) -> None:
    assert _stop(project, signal.SIGKILL, updates=12) == -signal.SIGKILL
    older, newest = _checkpoints(project)[-2:]
    tensors = newest.with_suffix(".safetensors")
    data = bytearray(tensors.read_bytes())
    if damage == "truncated":
        tensors.write_bytes(data[: len(data) // 2])
    elif damage == "one bit":
        data[-5] ^= 1
        tensors.write_bytes(data)
    else:
        newest.write_text(json.dumps({"update": 1}) if damage == "no state" else "")
    assert _ends(project, ("2",)) == 0
    assert f"{newest.stem}.json cannot be used" in _said(project)
    assert f"going on from update {int(older.stem[3:12])} of" in _said(project)
    assert left(project, ("2",)).items() <= unbroken.items()


def test_every_checkpoint_damaged(project: Path, unbroken: dict[str, str]) -> None:
    assert _stop(project, signal.SIGKILL) == -signal.SIGKILL
    for path in _checkpoints(project):
        path.with_suffix(".safetensors").write_bytes(b"")
    assert _ends(project, ("2",)) == 0
    assert "going on from" not in _said(project)
    assert left(project, ("2",)).items() <= unbroken.items()


def test_changed_parameter_starts_anew_and_changed_back_goes_on(project: Path, unbroken: dict[str, str]) -> None:
    assert _stop(project, signal.SIGKILL) == -signal.SIGKILL
    params = read_params(project)
    params["training"]["learning_rate"] *= 2
    write_params(project, params)
    assert _ends(project, ("2",)) == 0
    assert "going on from" not in _said(project)
    changed = (project / "models/level2/weights.safetensors").read_bytes()
    shutil.rmtree(project / "done")
    params["training"]["learning_rate"] /= 2
    write_params(project, params)
    assert _ends(project, ("2",)) == 0
    assert "level2: going on from update" in _said(project)
    assert left(project, ("2",)).items() <= unbroken.items()
    assert (project / "models/level2/weights.safetensors").read_bytes() != changed


def test_changed_data_starts_anew(project: Path, unbroken: dict[str, str]) -> None:
    assert _stop(project, signal.SIGKILL) == -signal.SIGKILL
    images = np.load(project / "data/pyramid/x2.npy", mmap_mode="r+")
    images[0, 0, 0, 0, 0] = 1 - images[0, 0, 0, 0, 0]
    images.flush()
    assert _ends(project, ("2",)) == 0
    assert "going on from" not in _said(project)


def test_two_at_once(project: Path, unbroken: dict[str, str]) -> None:
    first = start(project)
    _wait(lambda: bool(_checkpoints(project)), first.is_alive)
    assert _ends(project) == 1
    assert "another process is training it with the same settings" in _said(project)
    first.join(60)
    assert left(project) == unbroken


def test_full_disk(project: Path, unbroken: dict[str, str]) -> None:
    """A real file system that is too small for the second checkpoint."""
    scratch = project / ".cache/training"
    scratch.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(scratch)]
    try:
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small file system needs root")
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    try:
        assert _ends(project) == 2
        assert "the disk is full; free some space and run the same command again" in _said(project)
        assert "Traceback" not in _said(project)
        assert _checkpoints(project), "the checkpoints before it stay"
        subprocess.run(["mount", "-o", "remount,size=20m", str(scratch)], check=True)
        assert _ends(project) == 0
        assert "level2: going on from update" in _said(project)
        assert left(project) == unbroken
    finally:
        subprocess.run(["umount", "-l", str(scratch)], check=True)


def test_warm_start_begins_with_the_given_weights(project: Path, unbroken: dict[str, str]) -> None:
    assert _ends(project, ("2",)) == 0
    shutil.copytree(project / "models/level2", project / "before")
    params = read_params(project)
    params["levels"]["2"] |= {"warm_start": "before", "updates": 3}
    params["training"] |= {"learning_rate": 1e-9, "weight_decay": 0.0, "ema_half_life_images": 0}
    write_params(project, params)
    shutil.rmtree(project / "done")
    assert _ends(project, ("2",)) == 0, _said(project)
    first, second = (load_file(project / f"{name}/weights.safetensors") for name in ("before", "models/level2"))
    for name, value in first.items():
        if name != "log_sigma":
            torch.testing.assert_close(second[name], value, rtol=0, atol=1e-6)
    run = json.loads((project / "models/level2/run.json").read_text())
    assert run["inputs"]["before/weights.safetensors"] == unbroken["models/level2/weights.safetensors"]


def test_several_processes_under_the_stage(project: Path, template: tuple[Path, dict[str, str]]) -> None:
    """The stage itself, in two processes: one set of outputs, and one process's curve to float rounding."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.stages.train", "2"],
        cwd=project,
        env={**os.environ, "LAPCVAE_PROCESSES": "2", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    curves = [(folder / "models/level2/curve.csv").read_text().splitlines() for folder in (project, template[0])]
    assert curves[0][0] == curves[1][0]
    for two, one in zip(curves[0][1:], curves[1][1:], strict=True):
        assert [float(v) for v in two.split(",")] == pytest.approx([float(v) for v in one.split(",")], rel=1e-3)
    assert not list((project / ".cache/training").glob("*/*"))
