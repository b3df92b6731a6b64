"""A trained level on disk: weights.safetensors and model.json. Nothing that is loaded can run code."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from lapcvae.config import parse
from lapcvae.errors import ConfigError, ModelError
from lapcvae.io.atomic import atomic_path, write_json
from lapcvae.models.cascade import Cascade
from lapcvae.models.level import LevelCVAE, LevelScale
from lapcvae.models.settings import ModelSettings
from lapcvae.pyramid.filters import PyramidKind

WEIGHTS, DESCRIPTION = "weights.safetensors", "model.json"


@dataclasses.dataclass(frozen=True)
class Description:
    """All that is needed to build a level before its weights are read.

    level, depth: k and K. side: of x_k in pixels. pyramid: the filters. settings: resolved. scale: what it normalises
    with. coarser_latents: shape of z_{k+1} where the prior network reads it.
    """

    level: int
    depth: int
    side: int
    pyramid: PyramidKind
    settings: ModelSettings
    scale: LevelScale
    coarser_latents: tuple[int, ...] = ()

    def build(self) -> LevelCVAE:
        """A new, untrained level. Raises `ConfigError` for settings that a level of this kind cannot have."""
        coarsest = self.level == self.depth
        try:
            return LevelCVAE(self.settings, self.side, coarsest, self.scale, self.pyramid, self.coarser_latents)
        except ValueError as error:
            raise ConfigError(f"level {self.level} of {self.depth}, {self.side} px: {error}") from None


def save_level(level: LevelCVAE, description: Description, folder: Path) -> None:
    """Write weights and description, each whole or not at all. Raises `StorageError`."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in level.state_dict().items()}
    data = save(tensors)  # in memory, so that a full disk is an error of the file system's and not of the format's
    with atomic_path(folder / WEIGHTS) as temporary:
        temporary.write_bytes(data)
    write_json(folder / DESCRIPTION, dataclasses.asdict(description))


def read_description(folder: Path) -> Description:
    """The description beside the weights. Raises `ModelError` naming what is wrong with it."""
    path = folder / DESCRIPTION
    try:
        tree: Any = json.loads(path.read_text(encoding="utf-8"))
        return parse(Description, tree, "", path)
    except FileNotFoundError:
        raise ModelError(f"{path}: not found; `dvc repro` trains the model, or name another folder") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: not valid JSON ({error}); train the level again or restore the file") from None
    except ConfigError as error:
        raise ModelError(f"{error}; the model was made by another version, or the file was changed") from None


def load_level(folder: Path) -> tuple[LevelCVAE, Description]:
    """A trained level in evaluation mode on the processor.

    Raises `ModelError` for a missing, truncated or foreign file, for one that could run code, for a description that
    is not ours, for weights of other shapes or types, and for weights that are not finite.
    """
    description = read_description(folder)
    level = description.build()
    load_weights(level, folder)
    return level.eval(), description


def load_weights(level: LevelCVAE, folder: Path) -> None:
    """Put the weights in `folder` into a level of the same shapes. Raises `ModelError` as `load_level` does."""
    path = folder / WEIGHTS
    tensors = _tensors(path)
    wanted, found = _shapes(level.state_dict()), _shapes(tensors)
    if wanted != found:
        name = sorted(set(wanted.items()) ^ set(found.items()))[0][0]
        raise ModelError(
            f"{path}: does not fit the model's settings: `{name}` is {found.get(name, 'missing')}, "
            f"wanted {wanted.get(name, 'none')}; the weights and the settings ({DESCRIPTION}, or params.yaml where "
            "they start a training) are of different models"
        )
    for name, value in tensors.items():
        if not value.is_floating_point() and level.state_dict()[name].is_floating_point():
            raise ModelError(f"{path}: `{name}` holds {value.dtype}, not floating-point numbers; train again")
        if not torch.isfinite(value).all():
            raise ModelError(f"{path}: `{name}` holds values that are not finite; the model is damaged, train again")
    level.load_state_dict(tensors)


def has_shapes_of(level: LevelCVAE, folder: Path) -> bool:
    """Whether the weights in `folder` have the level's names and shapes. Raises `ModelError` for a damaged file."""
    return _shapes(_tensors(folder / WEIGHTS)) == _shapes(level.state_dict())


def _shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ModelError(f"{path}: not found; `dvc repro` trains the model, or name another folder") from None
    except (SafetensorError, OSError) as error:
        # Asked only now: a whole safetensors file may begin with any bytes, its header's length.
        if _is_pickle(path):
            raise ModelError(
                f"{path}: a pickle or an archive of one, which could run code when it is loaded, so it is not; only "
                "safetensors files are. Train again, or get the model as safetensors"
            ) from None
        raise ModelError(f"{path}: not a whole safetensors file ({error}); restore it or train again") from None


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as stream:
        start = stream.read(2)
    return start == b"PK" or start[:1] == b"\x80"  # a zip, as torch.save writes, or a bare pickle


def load_cascade(folders: list[Path]) -> Cascade:
    """The composed model from the folders of levels 1 ... K. Raises `ModelError` when they do not fit together."""
    loaded = [load_level(folder) for folder in folders]
    for k, (_, description) in enumerate(loaded, 1):
        if (description.level, description.depth) != (k, len(loaded)):
            raise ModelError(
                f"{folders[k - 1]}: is level {description.level} of {description.depth}, expected level {k} of "
                f"{len(loaded)}"
            )
        if description.pyramid != loaded[0][1].pyramid or description.side * 2 ** (k - 1) != loaded[0][1].side:
            raise ModelError(f"{folders[k - 1]}: its pyramid does not fit that of {folders[0]}; train them together")
    return Cascade([level for level, _ in loaded], loaded[0][1].pyramid).eval()
