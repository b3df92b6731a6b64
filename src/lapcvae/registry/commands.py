"""The operator's commands: who is champion, going back, and where a model came from."""

from __future__ import annotations

from typing import Annotated

import typer

from lapcvae.registry import lineage, promotion, tracking

app = typer.Typer()

Model = Annotated[str, typer.Argument(help="`NAME`, `NAME@ALIAS`, `NAME@VERSION`, or an alias or version alone.")]


@app.command()
def rollback() -> None:
    """Bring the previous champion back. Each further rollback goes one champion further back."""
    name = tracking.read_config().model
    lost, kept = promotion.rollback(name)
    print(f"{name}: version {kept} is champion again; version {lost} is not promoted again unless by `lapcvae promote`")


@app.command()
def promote(version: Annotated[int, typer.Argument(help="Version to make champion, whatever the gate said.")]) -> None:
    """Make a version champion by hand; the old champion becomes `previous`."""
    name = tracking.read_config().model
    moved = promotion.promote(name, version, "promoted by hand")
    print(f"{name}: version {version} is champion" + ("" if moved else " already"))


@app.command()
def trace(
    model: Model = "champion",
    data: Annotated[str, typer.Option(help="Instead: the versions made of the data set with this digest.")] = "",
) -> None:
    """Show what a registered model was made from, or what was made from a data set."""
    name, version = _parse(model)
    if data:
        found = lineage.made_of(name, data)
        for made in found:
            print(f"{name} version {made}")
        if not found:
            print(f"no version of {name} was made of a data set whose digest begins so")
        return
    print(lineage.trace(name, version).text())


def _parse(model: str) -> tuple[str, str]:
    """`NAME`, `NAME@ALIAS`, `NAME/3`, the same after `models:/`, an alias, or a version: the model's name and the
    alias or version.
    """
    own = tracking.read_config().model
    name, _, version = model.removeprefix("models:/").replace("/", "@").partition("@")
    if version:
        return name, version
    return (own, "champion") if model == own else (own, model)
