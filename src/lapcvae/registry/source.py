"""What a run was made from, as far as git and `params.yaml` can tell."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

# What decides a result. `dvc.lock` and the reports change while the pipeline runs and say nothing about its code.
_DECIDES = ("src", "pipelines", "dvc.yaml", "params.yaml", "constraints.txt", "pyproject.toml")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted keys; an empty mapping vanishes, a list becomes its JSON."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = json.dumps(value) if isinstance(value, list | tuple) else value
    return flat


def git_tags() -> dict[str, str]:
    """The commit (in an experiment of DVC's: the commit it started from) and whether the work tree differs from it.

    Empty where git or a repository is missing.
    """
    commit = os.environ.get("DVC_EXP_BASELINE_REV") or _git("rev-parse", "HEAD")
    if not commit:
        return {}
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *_DECIDES)
    return {"mlflow.source.git.commit": commit, "git_dirty": "true" if changed else "false"}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
