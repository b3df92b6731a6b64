"""What a level's training begins with: random weights, those of a model that params.yaml names, or the champion's."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lapcvae.io.atomic import read_json
from lapcvae.models.level import LevelCVAE
from lapcvae.models.storage import WEIGHTS, has_shapes_of, load_weights

CHAMPION = Path("data/warm_start/champion")  # levelK/ of a registered pyramid, and ORIGIN
ORIGIN = "champion.json"  # the registered model's name, and its version


@dataclass(frozen=True)
class FirstWeights:
    """Where first weights came from. origin: in words; "" for random ones. files: that they were read from."""

    origin: str = ""
    files: list[Path] = field(default_factory=list)


def put_first_weights(model: LevelCVAE, name: str, given: str) -> FirstWeights:
    """Put a level's first weights into it, where there are other than the random ones it has.

    given: the folder of a trained model of the same shapes that params.yaml names; it goes before the champion's level
    `name`. A champion's level of other shapes is passed over: its settings are not today's.
    Raises `ModelError` for a given folder that does not fit, and for damaged files.
    """
    if given:
        load_weights(model, Path(given))
        return FirstWeights(given, [Path(given, WEIGHTS)])
    folder = CHAMPION / name
    if not (folder / WEIGHTS).exists() or not has_shapes_of(model, folder):
        return FirstWeights()
    load_weights(model, folder)
    champion = read_json(CHAMPION / ORIGIN)
    return FirstWeights(f"{champion['model']} version {champion['version']}", [folder / WEIGHTS])
