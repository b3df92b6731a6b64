"""A model by its name on the command line: a folder, or one in MLflow's registry."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lapcvae.errors import ConfigError

_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@contextmanager
def located(model: str) -> Iterator[Path]:
    """The folder of `model`: one on disk, or models:/NAME@ALIAS or models:/NAME/VERSION, copied for the while.

    Raises `ConfigError` for a registered name of another form, `RegistryError` where the registry does not have it.
    """
    if not model.startswith("models:"):
        yield Path(model)
        return
    found = _REGISTERED.fullmatch(model)
    if found is None:
        raise ConfigError(f"{model}: a registered model is named as models:/lapcvae@champion or models:/lapcvae/3")
    from lapcvae.registry.models import fetch

    with tempfile.TemporaryDirectory(prefix="lapcvae-") as scratch:
        levels = fetch(found["name"], found["alias"] or found["version"], Path(scratch))
        yield levels[0].parent
