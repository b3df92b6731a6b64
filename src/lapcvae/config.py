"""A strict loader: a subtree of `params.yaml` and a frozen dataclass become an object, or an error that names the key.

Every part of the program defines its own dataclass beside its own code and loads only the subtree it owns.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

from lapcvae.errors import ConfigError

PARAMS_FILE = Path("params.yaml")
# A stage reads the file once a section; in C that takes a tenth of the time.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Words that YAML reads as one of these where they stand without quotes.
_READ_AS = {True: ("true", "on", "yes"), False: ("false", "off", "no")}

T = TypeVar("T")


def read_params(path: Path = PARAMS_FILE) -> dict[str, Any]:
    """The whole of a params file as plain dicts. Raises `ConfigError` if it is missing or is no YAML mapping."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: not found; run from the project's top folder, where params.yaml lies") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of parameters, found {type(tree).__name__}")
    return tree


def load(cls: type[T], key: str, path: Path = PARAMS_FILE) -> T:
    """Load the subtree at the dotted `key` of a params file as a `cls`, a frozen dataclass or a plain type.

    Raises `ConfigError` for a missing subtree, an unknown key, an ill-typed value, or a value `cls` itself refuses
    (its `__post_init__` raises `ValueError`).
    """
    node: Any = read_params(path)
    seen: list[str] = []
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            where = ".".join(seen) or "the top level"
            known = [str(k) for k in node] if isinstance(node, dict) else []
            raise ConfigError(f"{path}: `{key}` is missing: {where} has no `{part}`{_nearest(part, known)}")
        node = node[part]
        seen.append(part)
    return parse(cls, node, key, path)


def parse(cls: type[T], node: Any, key: str = "", path: Path | str = PARAMS_FILE) -> T:
    """Turn plain data into a `cls`; `key` and `path` only name the place in errors. Raises `ConfigError`."""
    return typing.cast(T, _convert(cls, node, key, str(path)))


def _convert(cls: Any, node: Any, key: str, path: str) -> Any:
    origin = typing.get_origin(cls)
    if cls is Any:
        return node
    if dataclasses.is_dataclass(cls) and isinstance(cls, type):
        return _dataclass(cls, node, key, path)
    if origin is Literal:
        choices = typing.get_args(cls)
        if isinstance(node, bool) and len(meant := [c for c in choices if c in _READ_AS[node]]) == 1:
            return meant[0]
        # bool is an int, and 1 == True: compare types too.
        if not any(node == c and type(node) is type(c) for c in choices):
            listed = ", ".join(repr(c) for c in choices)
            raise ConfigError(f"{path}: `{key}` is {node!r}; choose one of {listed}")
        return node
    if origin in (Union, types.UnionType):
        arms = [a for a in typing.get_args(cls) if a is not type(None)]
        if node is None and len(arms) < len(typing.get_args(cls)):
            return None
        if len(arms) != 1:
            raise TypeError(f"config fields may be optional, but not other unions: {cls}")
        return _convert(arms[0], node, key, path)
    if origin is tuple:
        return tuple(_convert(a, v, f"{key}[{i}]", path) for i, (a, v) in _pair(cls, node, key, path))
    if origin is dict:
        if not isinstance(node, dict):
            raise _ill_typed("a mapping", node, key, path)
        _, value_type = typing.get_args(cls)
        return {str(k): _convert(value_type, v, f"{key}.{k}", path) for k, v in node.items()}
    return _scalar(cls, node, key, path)


def _dataclass(cls: Any, node: Any, key: str, path: str) -> Any:
    if not isinstance(node, dict):
        raise _ill_typed("a mapping", node, key, path)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    for name in node:
        if name not in fields:
            raise ConfigError(f"{path}: unknown parameter `{_join(key, name)}`{_nearest(str(name), list(fields))}")
    values = {name: _convert(hints[name], value, _join(key, name), path) for name, value in node.items()}
    for name, field in fields.items():
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if name not in values and not optional:
            raise ConfigError(f"{path}: `{_join(key, name)}` is missing; {cls.__name__} needs it")
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(f"{path}: `{key}`: {error}") from None


def _scalar(cls: Any, node: Any, key: str, path: str) -> Any:
    if cls is float and isinstance(node, int | float) and not isinstance(node, bool):
        if not math.isfinite(node):
            raise ConfigError(f"{path}: `{key}` is {node}; a finite number is needed")
        return float(node)
    if cls in (int, bool, str) and type(node) is cls:
        return node
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    hint = ""
    if cls is float and isinstance(node, str):
        hint = " (YAML reads 1e-3 as text; write 1.0e-3)"
    raise _ill_typed(names.get(cls, str(cls)), node, key, path, hint)


def _pair(cls: Any, node: Any, key: str, path: str) -> enumerate[tuple[Any, Any]]:
    args = typing.get_args(cls)
    if not isinstance(node, list | tuple):
        raise _ill_typed("a list", node, key, path)
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(node)
    if len(args) != len(node):
        raise ConfigError(f"{path}: `{key}` has {len(node)} entries; {len(args)} are needed")
    return enumerate(zip(args, node, strict=True))


def _ill_typed(wanted: str, node: Any, key: str, path: str, hint: str = "") -> ConfigError:
    return ConfigError(f"{path}: `{key}` must be {wanted}, found {type(node).__name__} {node!r}{hint}")


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean `{close[0]}`?"
    return f"; known here: {', '.join(known)}" if known else ""


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
