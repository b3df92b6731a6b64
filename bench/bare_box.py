"""Stands in for PyYAML and tqdm where they are not installed: a GPU box may have torch, numpy and safetensors alone.

The strict loader and the progress bar import them; no benchmark reads a YAML file or needs a bar.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from typing import Any


class _Bar:
    def __init__(self, *_: object, **__: object) -> None:
        self.n = 0

    def __class_getitem__(cls, _: object) -> type:
        return cls

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


for _name in ("yaml", "tqdm"):
    if importlib.util.find_spec(_name) is None:
        sys.modules[_name] = types.ModuleType(_name)
        sys.modules[_name].__spec__ = importlib.machinery.ModuleSpec(_name, None)  # PyTorch's compiler asks for it
        sys.modules[_name].__dict__.update(tqdm=_Bar, YAMLError=ValueError, SafeLoader=object)
