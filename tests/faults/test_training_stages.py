"""Stages that train, given what they cannot use: exit code 2, a message that says what to do, nothing written."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lapcvae.models.level import LevelScale
from lapcvae.models.settings import ModelSettings
from lapcvae.models.storage import Description, save_level
from lapcvae.pyramid.laplacian import PyramidConfig
from lapcvae.pyramid.stored import write_pyramid

ROOT = Path(__file__).parents[2]


@pytest.fixture
def params() -> dict[str, Any]:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree


@pytest.fixture
def project(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    write_pyramid(images, ["train"] * 4 + ["val", "test"], PyramidConfig(), tmp_path / "data/pyramid")
    return tmp_path


def run(project: Path, params: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    (project / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert not (project / "models").exists()
    assert not (project / "data/rebuilt").exists()
    return done


def test_a_misspelt_parameter(project: Path, params: dict[str, Any]) -> None:
    params["levels"]["3"]["model"]["latnet"] = "vector"
    done = run(project, params, "pipelines.stages.train", "3")
    assert done.returncode == 2
    assert "params.yaml: unknown parameter `levels.3.model.latnet`; did you mean `latent`?" in done.stderr


def test_levels_that_do_not_fit_the_pyramid(project: Path, params: dict[str, Any]) -> None:
    params["levels"]["4"] = params["levels"]["3"]
    done = run(project, params, "pipelines.stages.train", "3")
    assert done.returncode == 2
    assert "`levels` has 1, 2, 3, 4, but a pyramid of 64, 32, 16 px has levels 1, 2, 3" in done.stderr


def test_a_damaged_pyramid(project: Path, params: dict[str, Any]) -> None:
    whole = (project / "data/pyramid/x3.npy").read_bytes()
    (project / "data/pyramid/x3.npy").write_bytes(whole[: len(whole) // 2])
    done = run(project, params, "pipelines.stages.train", "3")
    assert done.returncode == 2
    assert "x3.npy: not a readable packed array" in done.stderr


def test_no_pyramid(project: Path, params: dict[str, Any]) -> None:
    (project / "data/pyramid/pyramid.json").unlink()
    done = run(project, params, "pipelines.stages.train_baseline", "vae")
    assert done.returncode == 2
    assert "run `dvc repro pyramid`" in done.stderr


def test_a_diverging_run_is_our_failure_and_writes_nothing(project: Path, params: dict[str, Any]) -> None:
    params["training"] |= {"learning_rate": 1.0e6, "clip_norm": 1.0e30, "warmup_updates": 0, "precision": "fp32"}
    params["levels"]["3"]["updates"] = 20
    done = run(project, params, "pipelines.stages.train", "3")
    assert done.returncode == 1
    assert "in a row had an exploding or non-finite loss or gradient at update 20, and 3 returns" in done.stderr
    assert "lower `learning_rate` or `clip_norm` in params.yaml" in done.stderr


def test_a_warm_start_from_another_model(project: Path, params: dict[str, Any]) -> None:
    scale = LevelScale((0.5, 0.4, 0.3), 0.2, (0.5, 0.4, 0.3), 0.2)
    other = Description(1, 1, 16, "burt", ModelSettings(width=16, latent="vector", latent_size=128), scale)
    save_level(other.build(), other, project / "other")
    params["levels"]["3"]["warm_start"] = "other"
    done = run(project, params, "pipelines.stages.train", "3")
    assert done.returncode == 2
    assert "other/weights.safetensors: does not fit the model's settings" in done.stderr
    params["levels"]["3"]["warm_start"] = "nowhere"
    done = run(project, params, "pipelines.stages.train", "3")
    assert done.returncode == 2
    assert "nowhere/weights.safetensors: not found" in done.stderr
