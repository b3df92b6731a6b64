"""The real pipeline, small: what runs, what is restored, and what MLflow then knows, over a week of an experimenter."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.entities import Run

from lapcvae.io.atomic import sha256_file
from lapcvae.registry.store import open_client
from pipelines import dvc_runner

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data/samples/lfw-sample.tgz"
PHOTOGRAPHS = 60
PARTS = ("src", "pipelines", "data", "dvc.yaml", "params.yaml", ".dvcignore", ".dvc/config")
SMALL: dict[str, Any] = {
    "source": {"kind": "folder", "path": "photographs"},
    "split": {"val_share": 0.2, "test_share": 0.2},
    "validate": {"totals": {"accepted": {"low": 20}, "reject_share": {"high": 1}, "split_error": {"high": 1}}},
    "model": {"width": 8, "blocks": 1},
    "training": {"batch": 8, "warmup_updates": 1, "log_interval": 2},
    "levels": {level: {"updates": 4} for level in "321"},
    "baselines": {name: {"updates": 4} for name in ("vae", "vae_matched")},
    "evaluation": {"samples": 4},
}


@dataclass
class Step:
    """What one `dvc repro` ran and restored, in order, and what stood there after it."""

    ran: list[str]
    restored: list[str]
    weights: dict[str, str]
    runs_of: dict[str, str]
    current_version: int


def _overlay(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        tree[key] = _overlay(tree.get(key, {}), value) if isinstance(value, dict) else value
    return tree


def _repro() -> Step:
    said: list[str] = []
    dvc_runner.run_everything(said.append)
    lines = "\n".join(said)
    trained = [path.parent for path in sorted(Path("models").glob("*/weights.safetensors"))]
    return Step(
        ran=re.findall(r"^Running stage '(.+)':$", lines, re.MULTILINE),
        restored=re.findall(r"^Stage '(.+)' is cached - skipping run", lines, re.MULTILINE),
        weights={folder.name: sha256_file(folder / "weights.safetensors") for folder in trained},
        runs_of={folder.name: json.loads((folder / "run.json").read_text())["mlflow_run_id"] for folder in trained},
        current_version=int(open_client().get_model_version_by_alias("lapcvae", "current").version),
    )


def _set_updates(level: str, updates: int) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["levels"][level]["updates"] = updates
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of this project with few photographs and small models, current for the module's tests."""
    folder = tmp_path_factory.mktemp("project")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *PARTS]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    (folder / "params.yaml").write_text(yaml.safe_dump(_overlay(params, SMALL), sort_keys=False))
    with tarfile.open(SAMPLE) as archive:
        faces = sorted(name for name in archive.getnames() if name.endswith(".jpg"))[:PHOTOGRAPHS]
        for name in faces:
            target = folder / "photographs" / Path(name).parent.name / Path(name).name
            target.parent.mkdir(parents=True)
            source = archive.extractfile(name)
            assert source is not None
            target.write_bytes(source.read())
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", "LAPCVAE_PIPELINE_RUN"):
            patch.delenv(name, raising=False)
        patch.chdir(folder)
        yield folder


@pytest.fixture(scope="module")
def week(project: Path) -> dict[str, Step]:
    """What happened at each step, in order."""
    steps = {"first": _repro(), "nothing changed": _repro()}
    _set_updates("1", 5)
    steps["level 1 changed"] = _repro()
    _set_updates("1", 4)
    steps["changed back"] = _repro()
    return steps


def _pipelines() -> list[Run]:
    client = open_client()
    experiment = client.get_experiment_by_name("lapcvae")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], "tags.kind = 'pipeline'", order_by=["start_time ASC"])
    return list(found)


def _children(parent: Run) -> list[Run]:
    query = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    return list(open_client().search_runs([parent.info.experiment_id], query, order_by=["start_time ASC"]))


def test_first_run_runs_every_stage_and_the_next_looks_at_the_source_only(week: dict[str, Step]) -> None:
    assert sorted(week["first"].ran) == sorted(dvc_runner.stages())
    assert week["nothing changed"].ran == ["source"]
    assert week["nothing changed"].restored == []


def test_change_of_level_1_trains_level_1_only(week: dict[str, Step]) -> None:
    assert week["level 1 changed"].ran == ["source", "train@1", "evaluate", "register"]
    before, after = week["first"].weights, week["level 1 changed"].weights
    assert {name for name in before if before[name] != after[name]} == {"level1"}


def test_change_taken_back_is_restored_without_training(week: dict[str, Step]) -> None:
    assert week["changed back"].restored == ["train@1", "evaluate"]
    assert week["changed back"].ran == ["source", "register"]
    assert week["changed back"].weights == week["first"].weights
    assert week["changed back"].runs_of == week["first"].runs_of


def test_registry_follows_without_a_second_version(week: dict[str, Step]) -> None:
    assert [week[step].current_version for step in ("first", "level 1 changed", "changed back")] == [1, 2, 1]
    assert len(open_client().search_model_versions("name = 'lapcvae'")) == 2


def test_one_parent_a_pipeline_run_with_a_child_a_model(week: dict[str, Step]) -> None:
    first, changed, back = _pipelines()
    assert {run.info.run_name for run in _children(first)} == {"level3", "level2", "level1", "vae", "vae_matched"}
    assert [run.info.run_name for run in _children(changed)] == ["level1"]
    assert _children(back) == []
    assert [run.data.params["levels.1.updates"] for run in (first, changed, back)] == ["4", "5", "4"]
    for parent, step in ((first, "first"), (changed, "level 1 changed"), (back, "changed back")):
        assert parent.info.status == "FINISHED"
        assert parent.data.metrics["lapcvae.rmse_posterior_mean.mean"] > 0
        makers = {key.removeprefix("run."): run for key, run in parent.data.tags.items() if key.startswith("run.")}
        assert makers == week[step].runs_of
    assert len({parent.data.tags["data_digest"] for parent in (first, changed, back)}) == 1


def test_child_has_curves_and_pictures(week: dict[str, Step]) -> None:
    client = open_client()
    for run in _children(_pipelines()[0]):
        assert {"rate_nats", "distortion_nats", "images_per_second"} <= run.data.metrics.keys()
        assert len(client.get_metric_history(run.info.run_id, "rate_nats")) > 1
        assert any(file.path.endswith(".png") for file in client.list_artifacts(run.info.run_id))


def test_training_again_gives_the_same_bytes(week: dict[str, Step]) -> None:
    weights = Path("models/level1/weights.safetensors")
    weights.unlink()
    command = [sys.executable, "-m", "pipelines.stages.train", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sha256_file(weights) == week["first"].weights["level1"]


def test_vae_gan_and_levels_trained_together_are_stages_and_lines_of_the_same_table(week: dict[str, Step]) -> None:
    """Comes last: it adds both to the project."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    published = {"network": "published", "latent": "vector", "latent_size": 8}
    params["baselines"]["vae_gan"] = {"updates": 2, "objective": "vae_gan", "model": published}
    params["end_to_end"] = {"tuned": {"updates": 2}}
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    step = _repro()
    assert {"train_baseline@vae_gan", "train_end_to_end@tuned"} < set(step.ran)
    assert not {"train@1", "train@2", "train@3"} & set(step.ran)
    metrics = json.loads(Path("reports/metrics.json").read_text())
    assert metrics["tuned"]["latents"] == metrics["lapcvae"]["latents"]
    assert metrics["tuned"]["training"]["updates"] == 2
    assert metrics["vae_gan"]["parameters"] > 20_000_000
    assert {run.info.run_name for run in _children(_pipelines()[-1])} == {"vae_gan", "tuned"}
    for k in (1, 2, 3):
        tuned, greedy = (Path("models", part, f"level{k}/weights.safetensors") for part in ("tuned/levels", ""))
        assert sha256_file(tuned) != sha256_file(greedy)
