"""A project in which retraining is the real thing and takes seconds: few photographs, two levels of 32 and 16 px."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from pipelines import dvc_runner, journal, retraining, weeks
from pipelines.outcome import Outcome, RunStage

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data/samples/lfw-sample.tgz"
SMALL: dict[str, Any] = {
    "align": {"size_px": 32},
    "split": {"val_share": 0.2, "test_share": 0.25},
    "validate": {"totals": {"reject_share": {"high": 0.5}, "split_error": {"high": 1}}},
    "model": {"width": 8},
    "training": {"batch": 8, "warmup_updates": 1, "log_interval": 10},
    "evaluation": {"samples": 4},
    "executor": {"workers": 1},
    "retrain": {"intake": {"quiet_s": 0}, "drift": {"min_photographs": 8, "notice": 6, "veto": 9}},
    "gate": {
        "margins": {
            "bits_per_dim": 5, "dissimilarity": 1, "sharpness_error": 9, "inactive_share": 1,
            "feature_distance_mobilenetv2": 4,
        },
        "max_latency_ratio": 100, "limits": {"rmse_posterior_mean": 200, "bits_per_dim": 50, "inactive_share": 1},
    },
}  # fmt: skip


def make_project(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """A project without photographs, current from now on."""
    for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "LAPCVAE_PIPELINE_RUN", "LAPCVAE_RUNNER", "LAPCVAE_GATED"):
        patch.delenv(name, raising=False)
    patch.chdir(ROOT)
    weeks._make_project(folder, SMALL)
    patch.chdir(folder)

    def two_levels(params: dict[str, Any]) -> None:
        params["levels"] = {
            "2": {"after": "data/pyramid/pyramid.json", "updates": 3, "model": {"latent_size": 16, "latent": "vector"}},
            "1": {"after": "data/rebuilt/level2", "updates": 3, "model": {"latent_size": 2}},
        }

    change(two_levels)


def change(how: Callable[[dict[str, Any]], None]) -> None:
    """Change params.yaml."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    how(params)
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def set_updates(updates: int, levels: str = "12") -> None:
    def to(params: dict[str, Any]) -> None:
        for level in levels:
            params["levels"][level]["updates"] = updates

    change(to)


def some_faces(count: int) -> list[tuple[str, bytes]]:
    """Names, each in its person's folder, and bytes."""
    found: list[tuple[str, bytes]] = []
    with tarfile.open(SAMPLE) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None and len(found) < count:
                found.append((member.name.partition("/")[2], stream.read()))
    return found


def put(faces: dict[str, bytes], folder: str = "data/inbox") -> None:
    for name, data in faces.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def run_stage(stage: str, deadline: float) -> None:
    """As the flow's, but for stages that are up to date: DVC would find the same, and take two seconds for it."""
    with Repo() as repo:
        needed = bool(repo.status([stage]))
    if needed:
        dvc_runner.run_stage(stage, deadline=deadline)


def retrain(name: str, stages: RunStage = run_stage) -> Outcome:
    """One retraining in this process, without Prefect."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAPCVAE_PIPELINE_RUN", name)
        patch.setenv("LAPCVAE_GATED", "1")
        with journal.one_at_a_time(name) as held:
            assert held is not None
            return retraining.retrain(stages)
