import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lapcvae.errors import ModelError
from lapcvae.models.level import LevelScale
from lapcvae.models.settings import ModelSettings
from lapcvae.models.storage import Description, load_cascade, load_level, save_level

SCALE = LevelScale((0.5, 0.4, 0.3), 0.2, (0.5, 0.4, 0.3), 0.2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    description = Description(1, 1, 16, "burt", ModelSettings(width=16, latent_size=2), SCALE)
    torch.manual_seed(0)
    save_level(description.build(), description, tmp_path / "m")
    return tmp_path / "m"


def test_a_level_comes_back_as_it_was(folder: Path) -> None:
    level, description = load_level(folder)
    torch.manual_seed(0)
    for name, value in description.build().state_dict().items():
        assert torch.equal(value, level.state_dict()[name])
    assert description.scale == SCALE
    assert load_cascade([folder]).depth == 1


def test_truncated_weights(folder: Path) -> None:
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load_level(folder)


def test_missing_files(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match="not found"):
        load_level(folder)
    (folder / "model.json").unlink()
    with pytest.raises(ModelError, match="not found"):
        load_level(folder)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_never_loaded(folder: Path, tmp_path: Path, zipped: bool) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save(Payload(), folder / "weights.safetensors", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError, match="could run code"):
        load_level(folder)
    assert not (tmp_path / "ran").exists()


def test_a_header_may_have_the_length_that_a_pickle_begins_with(folder: Path) -> None:
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    lengths = set()
    for padding in range(0, 256, 8):
        save_file(tensors, path, metadata={"padding": "x" * padding})
        lengths.add(path.read_bytes()[0])
        assert load_level(folder)
    assert 0x80 in lengths


def test_weights_of_another_type(folder: Path) -> None:
    tensors = load_file(folder / "weights.safetensors")
    tensors["log_sigma"] = torch.tensor(1)
    save_file(tensors, folder / "weights.safetensors")
    with pytest.raises(ModelError, match=r"log_sigma.*torch.int64"):
        load_level(folder)


def test_weights_that_are_not_finite(folder: Path) -> None:
    tensors = load_file(folder / "weights.safetensors")
    tensors["log_sigma"] = torch.tensor(float("nan"))
    save_file(tensors, folder / "weights.safetensors")
    with pytest.raises(ModelError, match=r"log_sigma.*not finite"):
        load_level(folder)


def test_weights_of_another_model(folder: Path) -> None:
    text = json.loads((folder / "model.json").read_text())
    text["settings"]["width"] = 32
    (folder / "model.json").write_text(json.dumps(text))
    with pytest.raises(ModelError, match="different models"):
        load_level(folder)


def test_a_description_of_another_version(folder: Path) -> None:
    text = json.loads((folder / "model.json").read_text())
    text["settings"]["latent_sise"] = 3
    (folder / "model.json").write_text(json.dumps(text))
    with pytest.raises(ModelError, match="did you mean `latent_size`"):
        load_level(folder)


def test_levels_that_do_not_belong_together(folder: Path) -> None:
    with pytest.raises(ModelError, match="level 1 of 1, expected level 1 of 2"):
        load_cascade([folder, folder])
