"""The command `lapcvae`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from lapcvae.config import PARAMS_FILE
from lapcvae.data.account import as_text
from lapcvae.data.prepare import prepare as prepare_photographs
from lapcvae.data.summary import accept
from lapcvae.editing import commands as editing
from lapcvae.errors import LapcvaeError
from lapcvae.evaluation import commands as evaluation
from lapcvae.io.atomic import write_json
from lapcvae.registry.commands import app as registry_commands
from lapcvae.registry.located import located

Identity = Literal["folder", "none"]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


app.registered_commands.extend(registry_commands.registered_commands)


@app.callback()
def lapcvae(context: typer.Context) -> None:
    """A Laplacian pyramid of conditional variational autoencoders, for face photographs."""
    context.obj = located  # how commands of other rooms open MODEL


app.command()(editing.reconstruct)
app.command()(editing.sample)
app.command()(editing.edit)
app.command()(editing.interpolate)
app.command()(evaluation.evaluate)


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="Folder or archive (zip, tar, tar.gz, tar.bz2, tar.xz, tar.zst).")],
    out: Annotated[Path, typer.Option(help="Folder to write to; made if it is missing.")],
    json: Annotated[Path | None, typer.Option(help="Also write the account to this file.")] = None,
    identity: Annotated[Identity, typer.Option(help="Whether the folder of a photograph names the person.")] = "folder",
    params: Annotated[Path, typer.Option(help="File with the settings.")] = PARAMS_FILE,
) -> None:
    """Take any photographs: align the faces, split them, and account for every file."""
    counts = prepare_photographs(source, out, params, identity)
    if json is not None:
        write_json(json, counts)
    print(as_text(counts))
    print(f"{out}/aligned: images.npy and manifest.csv; {out}/account.html shows what was rejected")


@app.command()
def accept_data(
    report: Annotated[Path, typer.Option(help="A validation report that holds.")] = Path("reports/validation.json"),
    reference: Annotated[Path, typer.Option(help="Where the figures are kept.")] = Path("data/accepted.json"),
) -> None:
    """Make the present data set the one that later data sets are compared with."""
    print(f"{reference}: now the figures of the data set from `{accept(report, reference)}`; commit it")


def main() -> None:
    """Run the command; errors a user can mend end with exit code 2, ours with 1."""
    try:
        app()
    except LapcvaeError as error:
        print(f"lapcvae: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
