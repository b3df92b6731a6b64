"""A small real DVC project: three stages in a row and one aside, written in an order that is not theirs."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pipeline import backends

GRAPH = """\
vars: [params.yaml]
stages:
  last: {cmd: python stage.py last middle@b aside, deps: [stage.py, middle@b, aside], outs: [last]}
  middle:
    foreach: [a, b]
    do:
      cmd: python stage.py middle@${item} first
      deps: [stage.py, first]
      params: ["middle.${item}"]
      outs: ["middle@${item}"]
  aside: {cmd: python stage.py aside, deps: [stage.py], outs: [aside]}
  first: {cmd: python stage.py first, deps: [stage.py], params: [first], outs: [first]}
"""
# Each try leaves a line in `tries`; the files under `trouble` say how a stage goes wrong, once for each line in them.
STAGE = """\
import os, sys
from pathlib import Path

name, *before = sys.argv[1:]
with open("tries", "a") as tries:
    tries.write(name + "\\n")
trouble = Path("trouble", name)
if trouble.exists():
    code, *rest = trouble.read_text().split()
    trouble.write_text("\\n".join(rest)) if rest else trouble.unlink()
    print(f"{name}: error: the disk of {name} is full", file=sys.stderr)
    sys.exit(int(code))
Path(name).write_text(name + Path("params.yaml").read_text() + "".join(Path(file).read_text() for file in before))
"""
PARAMS = "first: 1\nmiddle: {a: 1, b: 1}\n"


def make_project(folder: Path) -> Path:
    folder.mkdir()
    (folder / "trouble").mkdir()
    for name, text in {"dvc.yaml": GRAPH, "stage.py": STAGE, "params.yaml": PARAMS}.items():
        (folder / name).write_text(text)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="session")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("dvc") / "template")


@pytest.fixture
def new_project(_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a fresh copy of the small project under the given name and makes it the current folder."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("LAPCVAE_PIPELINE_RUN", raising=False)

    def new(name: str) -> Path:
        shutil.copytree(_template, tmp_path / name)
        monkeypatch.chdir(tmp_path / name)
        return tmp_path / name

    return new


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A real Prefect server on a new database, for the whole session: it takes seconds to start."""
    from prefect.testing.utilities import prefect_test_harness  # imports the whole server

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    programs = backends.postgres_programs() or backends.install_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed and cannot be here; on Debian: apt-get install postgresql")
    # Not in pytest's own folder, which a second pytest beside this one closes to all users but its own.
    with tempfile.TemporaryDirectory() as top, backends.postgres(Path(top) / "cluster", programs) as address:
        yield address


@pytest.fixture(scope="session")
def store() -> Iterator[str]:
    with backends.s3() as address:
        yield address
