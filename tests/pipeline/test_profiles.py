"""Each profile, composed as `dvc exp run -S +profiles=NAME` does, is one whole, fair set of settings."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from dvc.utils.hydra import compose_and_dump

from lapcvae.config import load, parse
from lapcvae.data.sources import SourceConfig
from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import half_scale
from lapcvae.models.settings import resolve
from lapcvae.models.storage import Description
from lapcvae.pyramid.laplacian import level_sides
from lapcvae.training.settings import TrainingSettings
from pipelines.fit import Job

ROOT = Path(__file__).parents[2]
PROFILES = sorted(path.stem for path in (ROOT / "profiles").glob("*.yaml"))


def compose(name: str, folder: Path) -> Path:
    """params.yaml with a profile put over it."""
    path = folder / "params.yaml"
    compose_and_dump(path, str(ROOT), None, "params", str(ROOT), [f"+profiles={name}"])
    return path


def builds(path: Path) -> tuple[dict[str, LevelCVAE], dict[str, LevelCVAE]]:
    """The levels and the baselines of a params file, untrained."""
    params: dict[str, Any] = yaml.safe_load(path.read_text())
    sides = level_sides(params["align"]["size_px"], params["pyramid"]["coarsest"])
    assert sorted(params["levels"]) == [str(k) for k in range(1, len(sides) + 1)]
    made: dict[str, dict[str, LevelCVAE]] = {"levels": {}, "baselines": {}}
    for group, entries in made.items():
        for key, node in params[group].items():
            job = parse(Job, node, f"{group}.{key}", path)
            merged = {**params["training"], **job.training, "updates": job.updates}
            parse(TrainingSettings, merged, f"{group}.{key}", path)
            settings = resolve(params["model"], job.model, f"{group}.{key}.model")
            k, depth = (int(key), len(sides)) if group == "levels" else (1, 1)
            entries[key] = Description(k, depth, sides[k - 1], "burt", settings, half_scale()).build()
            if group == "levels":
                coarser = "data/pyramid/pyramid.json" if k == depth else f"data/rebuilt/level{k + 1}"
                assert job.after == coarser
    return made["levels"], made["baselines"]


def test_the_profiles_asked_for_are_there() -> None:
    assert {"embedded", "lfw64", "lfw128", "celeba64", "celeba128"} <= set(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_a_whole_and_fair_set_of_settings(name: str, tmp_path: Path) -> None:
    path = compose(name, tmp_path)
    load(SourceConfig, "source", path)
    levels, baselines = builds(path)
    assert {"vae", "vae_matched"} <= set(baselines)
    latents = [int(np.prod(level.latent_shape)) for level in levels.values()]
    matched = baselines["vae_matched"]
    assert int(np.prod(matched.latent_shape)) == sum(latents)
    assert len(matched.latent_shape) == len(levels["1"].latent_shape)
    parameters = sum(p.numel() for level in levels.values() for p in level.parameters())
    assert sum(p.numel() for p in matched.parameters()) == pytest.approx(parameters, rel=0.15)
    if name != "embedded":
        assert baselines["vae"].settings.network == "published"
        assert "vae_gan" in baselines
        updates = {
            entry["updates"]
            for group in ("levels", "baselines")
            for entry in yaml.safe_load(path.read_text())[group].values()
        }
        assert len(updates) == 1


def test_the_embedded_profile_is_params_yaml(tmp_path: Path) -> None:
    composed = yaml.safe_load(compose("embedded", tmp_path).read_text())
    assert composed == yaml.safe_load((ROOT / "params.yaml").read_text())


def test_one_option_of_dvc_exp_run_chooses_a_profile(tmp_path: Path) -> None:
    """In a clone: the option writes the profile into params.yaml, and DVC then has its levels as stages."""
    clone = tmp_path / "clone"
    clone.mkdir()
    wanted = ["dvc.yaml", "params.yaml", "profiles", ".dvc/config", ".dvc/.gitignore", ".gitignore"]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *wanted],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for file in listed.stdout.split():
        (clone / file).parent.mkdir(parents=True, exist_ok=True)
        (clone / file).write_bytes((ROOT / file).read_bytes())
    # A stage that needs nothing, before the real ones.
    graph = (clone / "dvc.yaml").read_text().replace("stages:\n", "stages:\n  nothing: {cmd: 'true'}\n", 1)
    (clone / "dvc.yaml").write_text(graph)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["config", "user.name", "a"], ["config", "user.email", "a@b.c"], ["add", "-A"]):
        subprocess.run([*git, *command], cwd=clone, check=True)
    subprocess.run([*git, "commit", "-qm", "one"], cwd=clone, check=True)
    dvc = [sys.executable, "-m", "dvc"]
    run = [*dvc, "exp", "run", "-S", "+profiles=lfw128_paper", "nothing"]
    done = subprocess.run(run, cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    params = yaml.safe_load((clone / "params.yaml").read_text())
    assert (params["align"]["size_px"], params["model"]["preset"], params["source"]["kind"]) == (128, "paper", "lfw")
    stages = subprocess.run(
        [*dvc, "stage", "list", "--name-only"], cwd=clone, capture_output=True, text=True, check=True
    )
    assert {"train@4", "train@1", "train_baseline@vae_gan"} <= set(stages.stdout.split())
