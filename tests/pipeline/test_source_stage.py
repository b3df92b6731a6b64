"""What DVC makes of a folder that nobody has looked at, by the project's own first two stages."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lapcvae.data.photographs import read_index
from pipelines import dvc_runner
from tests.pipeline.small_retraining import some_faces

ROOT = Path(__file__).parents[2]
LONGEST_S = 120  # the stages take seconds; DVC, where it opens a FIFO, waits for ever


@pytest.fixture
def project(new_project: Callable[[str], Path]) -> Path:
    """A project of `source` and `download`, and beside it a folder with three photographs and what is no photograph."""
    project = new_project("any")
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    graph = {name: stages[name] for name in ("source", "download")}
    for stage in graph.values():
        stage["deps"] = [dep for dep in stage["deps"] if not dep.startswith(("src/", "pipelines/"))]
    del graph["source"]["deps"]
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": graph}))
    (project / "data/taken").mkdir(parents=True)
    photographs = project.parent / "photographs"
    photographs.mkdir()
    for number, (_, data) in enumerate(some_faces(3)):
        (photographs / f"{number}.jpg").write_bytes(data)
    os.mkfifo(photographs / "fifo.jpg")
    (photographs / "root").symlink_to("/")
    (photographs / "dangling.jpg").symlink_to("/nowhere")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(photographs / "socket.jpg"))  # the name of a socket must be short
    (photographs / os.fsdecode(b"\xff\xfe.jpg")).write_bytes(b"not UTF-8, and no photograph")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["source"] |= {"kind": "folder", "path": str(photographs)}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    return project


def _repro(project: Path) -> list[str]:
    """`dvc repro`; returns which stages ran."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"^Running stage '(.+)':$", done.stdout, re.MULTILINE)


def test_any_folder_is_read_and_a_change_in_it_is_seen(project: Path) -> None:
    assert _repro(project) == ["source", "download"]
    found = {entry.name: entry.reason for entry in read_index(project / "data/raw")}
    assert [found.pop(f"{number}.jpg") for number in range(3)] == ["", "", ""]
    assert {found.pop(name) for name in ("fifo.jpg", "root", "dangling.jpg", "socket.jpg")} == {"not_a_file"}
    assert list(found.values()) == [""]  # the name that is no UTF-8; its content is looked at later

    assert _repro(project) == ["source"]
    assert dvc_runner.is_up_to_date()

    photograph = project.parent / "photographs" / "0.jpg"
    times, data = photograph.stat(), photograph.read_bytes()
    photograph.write_bytes(data[:-2] + b"\0\0")
    os.utime(photograph, ns=(times.st_atime_ns, times.st_mtime_ns))
    before = {entry.name: entry.sha256 for entry in read_index(project / "data/raw")}
    assert _repro(project) == ["source", "download"]
    after = {entry.name: entry.sha256 for entry in read_index(project / "data/raw")}
    assert {name for name in before if before[name] != after[name]} == {"0.jpg"}
