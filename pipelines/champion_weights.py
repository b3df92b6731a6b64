"""The champion's weights, laid out where training finds them, when every level is to be trained anyway."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from lapcvae.errors import RegistryError
from lapcvae.io.atomic import atomic_folder, read_json, write_json
from lapcvae.registry import models, promotion, tracking
from pipelines import dvc_runner
from pipelines.first_weights import CHAMPION, ORIGIN
from pipelines.outcome import Say

LEVELS = "train@"  # what the addresses of the stages that train levels begin with


def lay_out(wanted: bool, tell: Say) -> None:
    """Bring `first_weights.CHAMPION` up to date: the champion's levels, or nothing where none are `wanted`.

    Every level depends on that folder, so it is left alone unless every level of DVC's graph is due: it makes no
    training necessary. DVC keeps what is put there, so that results made from it stay repeatable. Where MLflow is away
    it stays as it is.
    """
    for left in CHAMPION.parent.glob(f".{CHAMPION.name}.*.partial"):  # by a run that was killed
        shutil.rmtree(left)
    if not wanted and not CHAMPION.exists():
        return
    levels = [stage for stage in dvc_runner.stages() if stage.startswith(LEVELS)]
    if any(dvc_runner.is_up_to_date(level) for level in levels):
        return
    name = tracking.read_config().model
    try:
        champion = promotion.standing(name).champion if wanted else None
        if champion is None:
            if CHAMPION.exists():
                dvc_runner.forget(CHAMPION, tell)
                shutil.rmtree(CHAMPION)
            return
        origin = {"model": name, "version": champion}
        if not CHAMPION.exists() or read_json(CHAMPION / ORIGIN) != origin:
            with tempfile.TemporaryDirectory() as scratch, atomic_folder(CHAMPION) as folder:
                for level in models.fetch(name, str(champion), Path(scratch)):
                    shutil.copytree(level, folder / level.name)
                write_json(folder / ORIGIN, origin)
        dvc_runner.add(CHAMPION, tell)
        tell(f"warm start: levels begin with the weights of {name} version {champion}")
    except RegistryError as error:
        tell(f"warm start: left as it is, {error}")
