"""Who is champion: the moves of the aliases `champion` and `previous`, each whole or finished by the next command.

A move is written down on the registered model first (tag `moving`), then done, then struck out. Each alias is set in
one transaction of MLflow's, so at every moment there is one champion; a move that was interrupted is finished by
whoever looks next, and finishing twice changes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lapcvae.errors import RegistryError
from lapcvae.registry import models
from lapcvae.registry.models import CHAMPION, PREVIOUS, DamagedVersionError
from lapcvae.registry.store import open_client, told

if TYPE_CHECKING:
    from mlflow import MlflowClient

_MOVING, _PREDECESSOR, _FROZEN = "moving", "predecessor", "frozen_test"
ROLLED_BACK, VERDICT, MOVE = "rolled_back", "gate", "gate_move"


@dataclass(frozen=True)
class Standing:
    """Versions as the registry has them now; None where there is none."""

    champion: int | None
    previous: int | None
    current: int | None


def standing(name: str) -> Standing:
    """Finish a move that was interrupted, then say who is who. Raises `RegistryError` where MLflow is away."""
    with told():
        client = open_client()
        if not _exists(client, name):
            return Standing(None, None, None)
        _finish(client, name)
        return _read(client, name)


def promote(name: str, version: int, reason: str, measured: Standing | None = None) -> bool:
    """Make a version the champion and the old one `previous`; False where it is the champion already.

    measured: the standing that the reason rests on; where another version is champion by now (somebody rolled back, or
    promoted by hand), nothing moves. Atomic and safe to repeat. Raises `RegistryError` then, and where there is no such
    version, its files are damaged, or MLflow is away.
    """
    whole(name, version)
    with told():
        client = open_client()
        _finish(client, name)
        now = _read(client, name)
        if now.champion == version:
            return False
        if measured is not None and now.champion != measured.champion:
            raise RegistryError(
                f"{name} version {version} was measured against version {measured.champion}, and version "
                f"{now.champion} has become champion since; the next retraining holds the gate again"
            )
        client.set_model_version_tag(name, str(version), ROLLED_BACK, "")
        if now.champion is not None:
            client.set_model_version_tag(name, str(version), _PREDECESSOR, str(now.champion))
        _move(client, name, version, now.champion, reason)
    return True


def rollback(name: str, reason: str = "rolled back") -> tuple[int, int]:
    """Bring `previous` back; (the version that was champion, the one that is now).

    The one that was champion is marked, so that the gate does not promote it again. `previous` becomes the one before,
    where that is known, so each further rollback goes one step further back. Raises `RegistryError` where there is
    nothing to go back to.
    """
    with told():
        client = open_client()
        _finish(client, name)
        now = _read(client, name)
        if now.champion is None or now.previous is None:
            raise RegistryError(
                f"{name}: there is no previous champion to bring back; `lapcvae trace {name}` shows what is"
            )
        whole(name, now.previous)
        client.set_model_version_tag(name, str(now.champion), ROLLED_BACK, "true")
        before = client.get_model_version(name, str(now.previous)).tags.get(_PREDECESSOR, "")
        earlier = int(before) if before and _has_version(client, name, before) else None
        _move(client, name, now.previous, earlier, reason)
    return now.champion, now.previous


def recover(name: str, here: list[Path]) -> str:
    """See to it that the champion is there and whole; what was done about it, or "" where nothing was wrong.

    A champion whose files are damaged gets them back from `here` (a pyramid's level folders), where those are the same
    model; else, and where the champion was deleted, `previous` takes its place. Raises `RegistryError` where neither
    can be.
    """
    now = standing(name)
    if now.champion is None:
        if now.previous is None:
            return ""
        whole(name, now.previous)
        with told():
            _move(open_client(), name, now.previous, None, "the champion was deleted")
        return f"the champion was deleted; version {now.previous}, the one before it, is champion again"
    try:
        whole(name, now.champion)
        return ""
    except DamagedVersionError as error:
        if models.mend(name, str(now.champion), here):
            whole(name, now.champion)
            return f"{error}; they were put back from models/"
        if now.previous is None:
            raise
        lost, kept = rollback(name, "the champion's files were damaged")
        return f"{error}; version {kept}, the one before {lost}, is champion again"


def whole(name: str, version: int) -> None:
    """Check a version's files against its digest. Raises `RegistryError` where they are damaged or MLflow is away."""
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        models.fetch(name, str(version), Path(scratch))


def note_verdict(name: str, version: int, tags: dict[str, str], card: str) -> None:
    """Write the gate's verdict (`gate`, `gate_reason` ...) and the model card on a version. Safe to repeat."""
    with told():
        client = open_client()
        for key, value in tags.items():
            client.set_model_version_tag(name, str(version), key, value)
        client.update_model_version(name, str(version), card)


def frozen_test(name: str) -> str:
    """The digest of the test set that this model's versions are measured on, "" before the first gate."""
    with told():
        return str(open_client().get_registered_model(name).tags.get(_FROZEN, ""))


def agree_on_test(name: str, digest: str) -> None:
    """Fix the test set of this model."""
    with told():
        open_client().set_registered_model_tag(name, _FROZEN, digest)


def tags_of(name: str, version: int) -> dict[str, str]:
    """The tags of a version."""
    with told():
        return dict(open_client().get_model_version(name, str(version)).tags)


def _move(client: MlflowClient, name: str, champion: int, previous: int | None, reason: str) -> None:
    plan = {"champion": champion, "previous": previous, "reason": reason}
    client.set_registered_model_tag(name, _MOVING, json.dumps(plan, sort_keys=True))
    _finish(client, name)


def _finish(client: MlflowClient, name: str) -> None:
    """Do what the tag `moving` says, from wherever an interruption left it."""
    model = client.get_registered_model(name)
    if not (text := model.tags.get(_MOVING)):
        return
    plan = json.loads(text)
    client.set_registered_model_alias(name, CHAMPION, str(plan["champion"]))
    if plan["previous"] is not None:
        client.set_registered_model_alias(name, PREVIOUS, str(plan["previous"]))
    elif PREVIOUS in model.aliases:
        client.delete_registered_model_alias(name, PREVIOUS)
    client.set_model_version_tag(name, str(plan["champion"]), "champion_because", plan["reason"])
    client.delete_registered_model_tag(name, _MOVING)


def _read(client: MlflowClient, name: str) -> Standing:
    aliases = client.get_registered_model(name).aliases
    found = {alias: int(version) for alias, version in aliases.items()}
    return Standing(found.get(CHAMPION), found.get(PREVIOUS), found.get(models.CURRENT))


def _exists(client: MlflowClient, name: str) -> bool:
    return bool(client.search_registered_models(f"name = '{name}'", max_results=1))


def _has_version(client: MlflowClient, name: str, version: str) -> bool:
    return bool(client.search_model_versions(f"name = '{name}' and version_number = {version}", max_results=1))
