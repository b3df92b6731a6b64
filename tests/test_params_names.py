"""No parameter has a name that DVC overlooks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lapcvae.config import read_params

PARAMS = Path(__file__).parents[1] / "params.yaml"


def keys(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield str(key)
            yield from keys(value)


def test_no_parameter_is_called_what_dvc_leaves_out_of_its_run_cache() -> None:
    # When DVC looks for an earlier run it drops every key named `size` or `nfiles`, in parameters too: a stage would be
    # given the outputs of another value without running.
    assert not {"size", "nfiles"} & set(keys(read_params(PARAMS)))
