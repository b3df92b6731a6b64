"""Imports run one way, heavy tools stay in their rooms, and the core needs torch, numpy and little else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.closure import closure, imports

ROOT = Path(__file__).parents[1]
ORDER = ["errors", "config", "io", "pyramid", "data", "models", "training", "evaluation", "editing", "registry", "cli"]
# A tool, and where alone it may be imported.
ROOMS = {
    "mlflow": "src/lapcvae/registry/",
    "prefect": "pipelines/flows/",
    "great_expectations": "src/lapcvae/data/expectations.py",
    "accelerate": "src/lapcvae/training/processes.py",
}
CORE_NEEDS = {"torch", "numpy", "yaml", "safetensors", "tqdm"}
CORE = ("pyramid", "models", "training")
CORE_MAY_USE = {"accelerate", "numba"}  # imported where there are several processes; where it is installed


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT / "src" if path.is_relative_to(ROOT / "src") else ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {path: _module(path) for folder in ("src", "pipelines") for path in sorted((ROOT / folder).rglob("*.py"))}


def _names(path: Path) -> set[str]:
    """All names a file imports, those under TYPE_CHECKING too."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    unconditional = ast.Module([n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)], [])
    return set(imports(unconditional, SOURCES[path], is_package=path.name == "__init__.py"))


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: SOURCES[path])
def test_imports_run_one_way(path: Path) -> None:
    names, room = _names(path), _room(SOURCES[path])
    if SOURCES[path].split(".")[0] == "pipelines":
        return
    assert not {name for name in names if name.split(".")[0] == "pipelines"}, "src never imports pipelines"
    ours = {_room(name) for name in names if name.startswith("lapcvae.")}
    if room:
        allowed = ORDER[: ORDER.index(room) + 1]
        assert ours <= set(allowed), f"{room} may import only from {allowed}"


@pytest.mark.parametrize("tool", ROOMS)
def test_tool_stays_in_its_room(tool: str) -> None:
    where = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if any(name.split(".")[0] == tool for name in _names(path))
    }
    assert where, f"nothing imports {tool}"
    assert not {path for path in where if not path.startswith(ROOMS[tool])}


@pytest.mark.parametrize("room", CORE)
def test_core_needs_little(room: str) -> None:
    modules = [module for module in SOURCES.values() if _room(module) == room]
    assert modules
    files = {file for module in modules for file in closure(module, ROOT)}
    outside = {name.split(".")[0] for file in files for name in _names(ROOT / file)} - {"lapcvae", "__future__"}
    assert outside - set(sys.stdlib_module_names) <= CORE_NEEDS | CORE_MAY_USE


def test_training_imports_no_more_than_the_core_needs() -> None:
    """What the core may use is not imported before it is needed, nor PyTorch's compiler, which takes seconds."""
    heavy = [*CORE_MAY_USE, "torch._dynamo"]
    code = f"import sys, lapcvae.training.loop; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_has_a_place() -> None:
    assert {_room(m) for m in SOURCES.values() if m.split(".")[0] == "lapcvae"} - {""} <= set(ORDER)
