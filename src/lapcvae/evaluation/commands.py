"""The command `evaluate`. `context.obj` opens MODEL, see `lapcvae.editing.commands`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from lapcvae.config import PARAMS_FILE
from lapcvae.errors import ConfigError
from lapcvae.io.atomic import write_json

Identity = Literal["folder", "none"]
Whom = Literal["all", "test"]


def evaluate(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A folder such as models, or such as models:/lapcvae@champion.")
    ],
    images: Annotated[Path, typer.Option(help="Folder or archive (zip, tar, tar.gz ...) of photographs.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    against: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Also measure this model, and the difference; repeatable.")
    ] = None,
    identity: Annotated[Identity, typer.Option(help="Whether the folder of a photograph names the person.")] = "folder",
    whom: Annotated[Whom, typer.Option(help="Everyone, or whom the pipeline's split sets aside for testing.")] = "all",
    work: Annotated[Path | None, typer.Option(help="Keep the prepared photographs in this folder.")] = None,
    params: Annotated[Path, typer.Option(help="File with the settings.")] = PARAMS_FILE,
) -> None:
    """Measure models on any photographs, prepared as the pipeline prepares its own."""
    from lapcvae.evaluation.any_photographs import evaluate_photographs
    from lapcvae.evaluation.table import text

    names = [model, *(against or [])]
    if len(set(names)) < len(names):
        raise ConfigError(f"{', '.join(names)}: a model stands against itself; name different ones")
    folders = {name: context.with_resource(context.obj(name)) for name in names}
    if work is None:
        work = Path(context.with_resource(tempfile.TemporaryDirectory(prefix="lapcvae-"))) / "photographs"
    found = evaluate_photographs(folders, images, work, params, identity, whom)
    write_json(out, found)
    account = found["photographs"]
    print(text(found["models"]))
    print(f"{account['accepted']} of {account['photographs']} photographs accepted; whom: {whom}")
    for note in found["notes"]:
        print(note)
    print(f"{out}: all figures, with intervals")
