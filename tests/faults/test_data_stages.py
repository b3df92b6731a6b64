"""The data stages as commands: exit codes, messages, and nothing half-written left behind."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

TOP = Path(__file__).parents[2]
SAMPLE = TOP / "data" / "samples" / "lfw-sample.tgz"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the project's params.yaml, and a folder of 12 photographs as its source."""
    shutil.copy(TOP / "params.yaml", tmp_path / "params.yaml")
    with tarfile.open(SAMPLE) as tar:
        for _ in range(12):
            member = tar.next()
            assert member is not None
            stream = tar.extractfile(member)
            assert stream is not None
            path = tmp_path / "photographs" / Path(member.name).parent.name / Path(member.name).name
            path.parent.mkdir(parents=True)
            path.write_bytes(stream.read())
    change(tmp_path, "source", kind="folder", path="photographs")
    change(tmp_path, "executor", workers=1)
    change(tmp_path, "validate", totals={"accepted": {"low": 1, "high": 1000}})
    return tmp_path


def change(project: Path, section: str, **values: Any) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    params[section].update(values)
    (project / "params.yaml").write_text(yaml.safe_dump(params))


def stage(project: Path, name: str, file_bytes: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run one stage; with `file_bytes` no file may grow beyond it, as on a disk that is full."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    return subprocess.run(
        [sys.executable, "-m", f"pipelines.stages.{name}"],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(TOP), "LAPCVAE_MIRRORS": ""},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=120,
    )


def left(project: Path) -> list[str]:
    """Files of outputs, scratch aside."""
    found = [p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file()]
    return sorted(f for f in found if not f.startswith(("photographs/", ".cache/", "params.yaml")))


def test_a_folder_of_ones_own_goes_through(project: Path) -> None:
    for name, says in (("download", "12 photographs"), ("landmarks", "12 newly"), ("align", "12 accepted, 0 rejected")):
        done = stage(project, name)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert done.stdout.startswith(f"{name}: ")
        assert done.stdout.count("\n") == 1
        assert says in done.stdout
    assert stage(project, "validate").returncode == 0
    assert np.load(project / "data/aligned/images.npy").shape == (12, 64, 64, 3)
    assert not [f for f in left(project) if "partial" in f]


def test_unknown_and_ill_typed_parameters_are_named(project: Path) -> None:
    change(project, "align", sise_px=64)
    change(project, "decode", max_pixels="many")
    change(project, "source", kind="floder")
    for name, says in (
        ("align", "did you mean `size_px`"),
        ("landmarks", "`decode.max_pixels` must be a whole number"),
        ("download", "`source.kind` is 'floder'; choose one of"),
    ):
        done = stage(project, name)
        assert done.returncode == 2
        assert says in done.stderr
        assert "Traceback" not in done.stderr
    assert left(project) == []


def test_a_stage_without_its_input_says_what_to_run(project: Path) -> None:
    for name, says in (
        ("landmarks", "run `dvc repro download` first"),
        ("align", "run `dvc repro download` first"),
        ("validate", "run `dvc repro align` first"),
    ):
        done = stage(project, name)
        assert done.returncode == 2
        assert says in done.stderr
    assert stage(project, "download").returncode == 0
    assert "run `dvc repro landmarks` first" in stage(project, "align").stderr


@pytest.mark.parametrize("content", ["missing", "truncated", "other"])
def test_a_sample_that_is_not_whole_is_not_opened(project: Path, content: str) -> None:
    change(project, "source", kind="sample")
    path = project / "data/samples/lfw-sample.tgz"
    if content != "missing":
        path.parent.mkdir(parents=True)
        path.write_bytes(SAMPLE.read_bytes()[: -1 if content == "truncated" else None])
    if content == "other":
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    done = stage(project, "download")
    assert done.returncode == 2
    assert "lfw-sample.tgz" in done.stderr
    assert "By hand" in done.stderr
    assert "Traceback" not in done.stderr
    assert [f for f in left(project) if "samples" not in f] == []


def test_a_full_disk_leaves_what_was_there(project: Path) -> None:
    assert stage(project, "download").returncode == 0
    before = {f: (project / f).read_bytes() for f in left(project)}
    done = stage(project, "download", file_bytes=50_000)
    assert done.returncode == 2, done.stderr
    assert "could not write data/raw" in done.stderr
    assert {f: (project / f).read_bytes() for f in left(project)} == before

    assert stage(project, "landmarks").returncode == 0
    assert stage(project, "align").returncode == 0
    before = {f: (project / f).read_bytes() for f in left(project)}
    change(project, "align", size_px=128)
    done = stage(project, "align", file_bytes=300_000)
    assert done.returncode == 2, done.stderr
    assert "could not" in done.stderr
    assert "Traceback" not in done.stderr
    assert {f: (project / f).read_bytes() for f in left(project)} == before
    done = stage(project, "align")
    assert done.returncode == 0
    assert np.load(project / "data/aligned/images.npy").shape == (12, 128, 128, 3)


def test_a_breach_stops_with_its_photographs(project: Path) -> None:
    for name in ("download", "landmarks", "align"):
        assert stage(project, name).returncode == 0
    change(project, "validate", ranges={"residual": {"low": 0.0, "high": 0.05}})
    done = stage(project, "validate")
    assert done.returncode == 2
    assert "column='residual'" in done.stderr
    assert "photographs/" not in done.stderr
    assert ".jpg" in done.stderr
    assert "reports/validation.json" not in left(project)
