"""Each stage's code as DVC should see it: the modules of this project that its command imports, and what those import.

    python -m pipelines.closure            say which stages of dvc.yaml name other files; exit code 1 if any do
    python -m pipelines.closure --write    put the right ones there

Only `.py` files under `src/lapcvae` and `pipelines` are looked after. Data, and anything with `${...}`, stays as it is.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lapcvae.io.atomic import write_text

_ROOTS = {"lapcvae": "src/lapcvae", "pipelines": "pipelines"}
_MODULE = re.compile(r"\bpython3? +-m +([\w.]+)")


def closure(module: str, top: Path = Path()) -> list[str]:
    """Paths, relative to `top`, of the project's non-empty modules that running `python -m module` may import; sorted.

    Imports inside functions count, those under `if TYPE_CHECKING:` do not. Importing `a.b` also runs `a`.
    """
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        if path := _file(name, top):
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            waiting += imports(tree, name, is_package=path.name == "__init__.py")
    files = [path for name in seen if (path := _file(name, top)) and path.read_text(encoding="utf-8").strip()]
    return sorted(path.relative_to(top).as_posix() for path in files)


def imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[str]:
    """Absolute dotted names that a module's syntax tree imports: `a.b` and `a.b.c` for `from a.b import c`."""
    package = module if is_package else module.rpartition(".")[0]
    for node in _running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _running(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from _running(node)


def _file(module: str, top: Path) -> Path | None:
    root, _, rest = module.partition(".")
    if root not in _ROOTS:
        return None
    base = top / _ROOTS[root] / rest.replace(".", "/")
    return next((path for path in (base / "__init__.py", base.with_suffix(".py")) if path.is_file()), None)


def bodies(graph: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and body of each stage of a parsed `dvc.yaml`; of a `foreach` stage, the body under `do`."""
    for name, stage in graph["stages"].items():
        yield name, stage.get("do", stage)


def right_deps(body: dict[str, Any], top: Path = Path()) -> list[Any]:
    """What a stage's `deps` should be: its code, sorted, then its other deps as they stand."""
    command = body["cmd"] if isinstance(body["cmd"], str) else "\n".join(body["cmd"])
    code = sorted({path for module in _MODULE.findall(command) for path in closure(module, top)})
    return code + [dep for dep in body.get("deps", []) if not _is_code(dep)]


def _is_code(dep: Any) -> bool:
    ours = isinstance(dep, str) and dep.startswith(tuple(f"{folder}/" for folder in _ROOTS.values()))
    return ours and dep.endswith(".py") and "${" not in dep


def main() -> None:
    """Compare, or rewrite, the `dvc.yaml` of the current folder."""
    from ruamel.yaml import YAML

    parser = argparse.ArgumentParser(prog="python -m pipelines.closure", description="Each stage's code in dvc.yaml")
    parser.add_argument("--write", action="store_true", help="rewrite the code deps of dvc.yaml")
    write = parser.parse_args().write
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    path = Path("dvc.yaml")
    graph = yaml.load(path.read_text(encoding="utf-8"))
    wrong = [(name, body) for name, body in bodies(graph) if list(body.get("deps", [])) != right_deps(body)]
    for name, body in wrong:
        right, found = right_deps(body), list(body.get("deps", []))
        for sign, deps, other in (("+", right, found), ("-", found, right)):
            for dep in deps:
                if dep not in other:
                    print(f"{name}: {sign} {dep}")
        if write:
            _replace(body.setdefault("deps", []), [dep for dep in right if _is_code(dep)])
    if wrong and write:
        stream = io.StringIO()
        yaml.dump(graph, stream)
        write_text(path, stream.getvalue())
    elif wrong:
        sys.exit("dvc.yaml names other code than its stages run; to mend it: python -m pipelines.closure --write")


def _replace(deps: list[Any], code: list[str]) -> None:
    """Put `code` first among `deps`, in place, so that comments stay with the other deps."""
    for index in reversed(range(len(deps))):
        if _is_code(deps[index]):
            del deps[index]
    for path in reversed(code):
        deps.insert(0, path)


if __name__ == "__main__":
    main()
