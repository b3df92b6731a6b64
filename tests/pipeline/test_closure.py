import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.closure import bodies, closure, right_deps

ROOT = Path(__file__).parents[2]
STAGES = dict(bodies(yaml.safe_load((ROOT / "dvc.yaml").read_text())))


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_the_code_it_runs(stage: str) -> None:
    body = STAGES[stage]
    assert body["deps"] == right_deps(body, ROOT), "to mend it: python -m pipelines.closure --write"
    assert f"pipelines/stages/{stage}.py" in body["deps"]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project: a stage that imports a package in each way Python has."""
    files = {
        "pipelines/__init__.py": "",
        "pipelines/stages/go.py": """\
from typing import TYPE_CHECKING
from lapcvae import direct
from lapcvae.room.inner import name
if TYPE_CHECKING:
    from lapcvae import typed
""",
        "src/lapcvae/__init__.py": "'''The package.'''",
        "src/lapcvae/direct.py": "def f():\n    import lapcvae.late\n",
        "src/lapcvae/late.py": "import numpy\n",
        "src/lapcvae/room/__init__.py": "from .relative import x\n",
        "src/lapcvae/room/inner.py": "name = 1\n",
        "src/lapcvae/room/relative.py": "from ..up import x\n",
        "src/lapcvae/up.py": "x = 1\n",
        "src/lapcvae/typed.py": "y = 1\n",
        "src/lapcvae/unused.py": "z = 1\n",
        "dvc.yaml": """\
# The graph.
stages:
  go:
    foreach: ${levels}
    do:
      cmd: python -m pipelines.stages.go ${key}
      deps:
        - src/lapcvae/unused.py
        - "data/${key}.npy"   # its own images
        - src/lapcvae/table.yaml

      params: [seed, "levels.${key}"]
      outs: ["models/${key}"]
  other:
    cmd: echo nothing of ours
""",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


CODE = [
    "pipelines/stages/go.py",
    "src/lapcvae/__init__.py",
    "src/lapcvae/direct.py",
    "src/lapcvae/late.py",
    "src/lapcvae/room/__init__.py",
    "src/lapcvae/room/inner.py",
    "src/lapcvae/room/relative.py",
    "src/lapcvae/up.py",
]


def test_closure_follows_every_way_to_import(tree: Path) -> None:
    assert closure("pipelines.stages.go", tree) == CODE
    assert closure("pipelines.stages.go") == CODE  # of the current folder


def _closure(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pipelines.closure import main; main()"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_write_mends_only_the_code_and_keeps_the_rest_as_it_was(tree: Path) -> None:
    before = (tree / "dvc.yaml").read_text()
    told = _closure()
    assert told.returncode == 1
    assert "go: + src/lapcvae/late.py" in told.stdout
    assert "go: - src/lapcvae/unused.py" in told.stdout
    assert "python -m pipelines.closure --write" in told.stderr
    assert (tree / "dvc.yaml").read_text() == before

    assert _closure("--write").returncode == 0
    listed = "".join(f"        - {path}\n" for path in CODE)
    assert (tree / "dvc.yaml").read_text() == before.replace("        - src/lapcvae/unused.py\n", listed)
    assert _closure().returncode == 0
