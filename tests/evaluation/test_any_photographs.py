"""`lapcvae evaluate` as it is typed, on real photographs and untrained models."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import torch

from lapcvae.models import mobilenet
from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import scale_of
from lapcvae.models.settings import ModelSettings
from lapcvae.models.storage import Description, save_level
from tests.command_line import lapcvae

TOP = Path(__file__).parents[2]
SAMPLE = TOP / "data" / "samples" / "lfw-sample.tgz"
STATISTICS = {
    str(k): {"mean": [0.5, 0.45, 0.4], "std": [0.2, 0.2, 0.2], "band_std": band} for k, band in {1: 0.1, 2: 0.2}.items()
}


def save(folder: Path, side: int, depth: int, seed: int) -> Path:
    torch.manual_seed(seed)
    settings = ModelSettings(width=16, latent_size=2, latent_grid=4)
    for k in range(1, depth + 1):
        scale = scale_of(STATISTICS, k, depth) if depth == 2 else scale_of({"1": STATISTICS["2"]}, 1, 1)
        level = LevelCVAE(settings, side // k, k == depth, scale)
        place = folder / f"level{k}" if depth > 1 else folder
        place.mkdir(parents=True)
        save_level(level, Description(k, depth, side // k, "burt", settings, scale), place)
    return folder


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with forty photographs, one a person, and a file that is none."""
    folder = tmp_path_factory.mktemp("faces")
    with tarfile.open(SAMPLE) as tar:
        count = 0
        while count < 40:
            member = tar.next()
            assert member is not None
            if member.isfile():
                path = folder / Path(member.name).parent.name / Path(member.name).name
                path.parent.mkdir()
                path.write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
                count += 1
    (folder / "notes.txt").write_text("no photograph")
    return folder


@pytest.mark.parametrize("whom", ["all", "test"])
def test_any_photographs_are_prepared_and_measured(faces: Path, tmp_path: Path, whom: str) -> None:
    # The models are of 32 px, the settings of 64: photographs are prepared at the models' size.
    model, other = save(tmp_path / "models", 32, 2, 0), save(tmp_path / "vae", 32, 1, 1)
    out = tmp_path / "found.json"
    done = lapcvae("evaluate", model, "--against", other, "--images", faces, "--out", out, "--whom", whom)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["photographs"]["photographs"] == 41
    assert found["photographs"]["rejected"] == {"not_an_image": 1}
    ours, theirs = (found["models"][str(folder)] for folder in (model, other))
    splits = found["photographs"]["splits"]
    expected = splits["test"] if whom == "test" else found["photographs"]["accepted"]
    assert ours["photographs"] == ours["people"] == expected
    assert set(theirs["levels"]) == {"1"}
    assert {"ms_ssim", "sharpness_ratio", "band_energy_ratio", "bits_per_dim", "samples", "cost"} <= set(ours)
    assert ours["rmse_posterior_mean"]["ci95_low"] < ours["rmse_posterior_mean"]["mean"]
    assert "ratio" in ours["against"][str(other)]["rmse_posterior_mean"]
    assert ("nearest_training" in ours) == (whom == "test")
    assert "training" not in ours  # its records do not lie beside these weights
    assert ours["cost"]["reconstruct_ms"] > 0
    assert str(model) in done.stdout
    if f"kd_{mobilenet.NAME}" in ours:
        assert ours[f"fd_{mobilenet.NAME}"]["n"] <= expected
    else:
        assert "feature distances are absent" in found["notes"][0]


def test_models_that_cannot_be_compared(faces: Path, tmp_path: Path) -> None:
    model, other = save(tmp_path / "models", 32, 2, 0), save(tmp_path / "vae", 16, 1, 1)
    out = ("--images", faces, "--out", tmp_path / "found.json")
    done = lapcvae("evaluate", model, "--against", other, *out)
    assert done.returncode == 2
    assert "32 px" in done.stderr
    done = lapcvae("evaluate", model, "--against", model, *out)
    assert done.returncode == 2
    assert "against itself" in done.stderr
    done = lapcvae("evaluate", model, "--images", tmp_path / "none", "--out", tmp_path / "found.json")
    assert done.returncode == 2
    assert "no such folder or archive" in done.stderr
    assert not (tmp_path / "found.json").exists()
