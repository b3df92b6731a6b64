"""The commands as they are typed, on real photographs and an untrained model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command_line import lapcvae


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_reconstruct_paint_and_edit(stored: Path, photographs: list[Path], tmp_path: Path) -> None:
    done = lapcvae("reconstruct", stored, photographs[0], photographs[1], "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    name = photographs[0].stem
    files = {path.name for path in (tmp_path / "out").iterdir()}
    each = ("aligned.png", "reconstruction.png", "level2.png", "level3.png")
    assert files == {f"{p.stem}.{kind}" for p in photographs[:2] for kind in each} | {"sheet.png"}
    assert pixels(tmp_path / "out" / f"{name}.aligned.png").shape == (64, 64, 3)
    level = pixels(tmp_path / "out" / f"{name}.level3.png").copy()
    assert level.shape == (256, 256, 3)
    level[:128, :64] = (250, 220, 40)
    Image.fromarray(level).save(tmp_path / "painted.png")
    edit = ("edit", stored, photographs[0], "--painted", tmp_path / "painted.png", "--level", 3, "--samples", 2)
    done = lapcvae(*edit, "--mode", "direct", "--out", tmp_path / "edit")
    assert (done.returncode, done.stderr) == (0, "")
    mask = pixels(tmp_path / "edit" / "mask.png")
    assert mask[:36, :20].min() == 255  # half the height, a quarter of the width, and a pixel of level 3 around
    assert mask[36:].max() == mask[:, 20:].max() == 0
    edited = pixels(tmp_path / "edit" / "edited-01.png").astype(int)
    rebuilt = pixels(tmp_path / "edit" / "reconstruction.png").astype(int)
    np.testing.assert_array_equal(rebuilt, pixels(tmp_path / "out" / f"{name}.reconstruction.png"))
    assert np.abs(edited - rebuilt)[:24, :8].mean() > 20
    assert np.abs(edited - rebuilt)[52:, 48:].max() <= 2
    # An aligned face is taken as it is, and the same seed gives the same picture.
    aligned = ("edit", stored, tmp_path / "out" / f"{name}.aligned.png", "--aligned", *edit[3:])
    assert lapcvae(*aligned, "--mode", "direct", "--out", tmp_path / "again").returncode == 0
    for file in ("edited-01.png", "edited-02.png", "sheet.png"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "edit" / file).read_bytes()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "mask.png")
    done = lapcvae(*edit, "--mask", tmp_path / "mask.png", "--out", tmp_path / "nothing")
    assert done.returncode == 0
    assert np.abs(pixels(tmp_path / "nothing" / "edited-01.png").astype(int) - rebuilt).max() <= 1


def test_sample_whole_and_in_part(stored: Path, photographs: list[Path], tmp_path: Path) -> None:
    one, two, three = (tmp_path / f"{i}.png" for i in range(3))
    for out, seed in ((one, 1), (two, 1), (three, 2)):
        assert lapcvae("sample", stored, "--n", 12, "--seed", seed, "--out", out).returncode == 0
    assert one.read_bytes() == two.read_bytes() != three.read_bytes()
    assert pixels(one).shape == (2 * 98 + 2, 10 * 98 + 2, 3)
    kept = tmp_path / "kept.png"
    done = lapcvae("sample", stored, "--keep", photographs[0], "--keep", photographs[1], "--n", 3, "--out", kept)
    assert (done.returncode, done.stderr) == (0, "")
    assert pixels(kept).shape == (4 * 98 + 2, 5 * 98 + 2, 3)  # two photographs, levels 3 and 2
    done = lapcvae("sample", stored, "--keep", photographs[0], "--from-level", 2, "--n", 3, "--out", kept)
    assert pixels(kept).shape == (98 + 2, 5 * 98 + 2, 3)
    done = lapcvae("sample", stored, "--from-level", 3, "--n", 3, "--out", kept)
    assert pixels(kept).shape == (98 + 2, 3 * 98 + 2, 3)


def test_interpolate(stored: Path, photographs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "between.png"
    done = lapcvae("interpolate", stored, *photographs[:2], "--steps", 4, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert pixels(out).shape == (4 * 98 + 2, 6 * 98 + 2, 3)


def test_a_registered_model_is_named_by_its_alias(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    from lapcvae.registry import models
    from lapcvae.registry.store import open_client

    client = open_client()
    run = client.create_run(client.create_experiment("faces", str(tmp_path / "artifacts")))
    models.register("lapcvae", [stored / f"level{k}" for k in (1, 2, 3)], run.info.run_id, {})
    here, named = tmp_path / "here.png", tmp_path / "named.png"
    assert lapcvae("sample", stored, "--n", 2, "--out", here).returncode == 0
    for name in ("models:/lapcvae@champion", "models:/lapcvae/1"):
        done = lapcvae("sample", name, "--n", 2, "--out", named)
        assert done.returncode == 0, done.stderr
        assert named.read_bytes() == here.read_bytes()
    assert lapcvae("sample", "models:/lapcvae@nobody", "--out", named).returncode == 1
    assert "models:/lapcvae@champion" in lapcvae("sample", "models:lapcvae", "--out", named).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sample", "MODEL/none", "--out", "OUT/a.png"], "holds no model"),
        (["sample", "MODEL", "--from-level", "4", "--out", "OUT/a.png"], "no level 4"),
        (["reconstruct", "MODEL", "OUT/none.jpg", "--out", "OUT/b"], "no such file"),
        (["reconstruct", "MODEL", "OUT/grey.png", "--out", "OUT/b"], "no_face"),
        (["edit", "MODEL", "FACE", "--painted", "OUT/grey.png", "--level", "3", "--out", "OUT/b"], "90 x 80 pixels"),
        (["edit", "MODEL", "FACE", "--painted", "OUT/square.png", "--level", "1", "--out", "OUT/b"], "no level 1"),
        (["sample", "MODEL", "--keep", "FACE", "--params", "OUT/p.yaml", "--out", "OUT/a.png"], "p.yaml: not found"),
    ],
)
def test_the_users_mistakes_are_said_and_leave_nothing(
    stored: Path, photographs: list[Path], tmp_path: Path, arguments: list[str], said: str
) -> None:
    Image.fromarray(np.full((80, 90, 3), 128, np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(tmp_path / "square.png")
    before = sorted(tmp_path.rglob("*"))
    places = {"MODEL": str(stored), "OUT": str(tmp_path), "FACE": str(photographs[0])}
    for name, place in places.items():
        arguments = [a.replace(name, place) for a in arguments]
    done = lapcvae(*arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_baseline_is_a_model_of_one_level(stored: Path, photographs: list[Path], tmp_path: Path) -> None:
    import json

    folder = tmp_path / "vae"
    shutil.copytree(stored / "level3", folder)
    description = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(description | {"level": 1, "depth": 1}))
    assert lapcvae("sample", folder, "--n", 2, "--out", tmp_path / "a.png").returncode == 0
    done = lapcvae("sample", folder, "--keep", photographs[0], "--out", tmp_path / "b.png")
    assert done.returncode == 2
    assert "one level has no coarser level" in done.stderr
    edit = ("edit", folder, photographs[0], "--painted", tmp_path / "a.png", "--level", 1, "--out", tmp_path / "c")
    assert "one level only" in lapcvae(*edit).stderr
