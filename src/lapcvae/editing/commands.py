"""The commands `reconstruct`, `sample`, `edit` and `interpolate`.

`context.obj` opens MODEL: the command line sets it, since registered models are known there and not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lapcvae.config import PARAMS_FILE
from lapcvae.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from lapcvae.models.cascade import Cascade

Mode = Literal["project", "direct"]
ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder such as models, or such as models:/lapcvae@champion.")
]
Photograph = Annotated[Path, typer.Argument(metavar="IMAGE", help="Any photograph of a face.")]
Aligned = Annotated[bool, typer.Option("--aligned", help="Photographs are aligned, square faces already.")]
Params = Annotated[Path, typer.Option(help="File with the settings of decoding, detection and alignment.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed gives the same picture.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="Scale of the prior's standard deviation; 0: its mean.")]


def reconstruct(
    context: typer.Context,
    model: ModelName,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Photographs of faces.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    aligned: Aligned = False,
    params: Params = PARAMS_FILE,
) -> None:
    """Write each photograph aligned and reconstructed, and its levels, to look at or to paint on."""
    from lapcvae.editing.pictures import enlarged, grid, pixels, save

    cascade = _open(context, model)
    faces = _faces(images, cascade, params, aligned)
    names = _names(images)
    rows = []
    for name, face in zip(names, faces, strict=True):
        passes = cascade.reconstruct(face)
        save(pixels(face), out / f"{name}.aligned.png")
        save(pixels(passes[0].rebuilt), out / f"{name}.reconstruction.png")
        for k, done in enumerate(passes[1:], 2):
            save(pixels(enlarged(done.rebuilt)), out / f"{name}.level{k}.png")
        rows.append([face, *(done.rebuilt for done in passes)])
    save(grid([_stacked(column) for column in zip(*rows, strict=True)]), out / "sheet.png")
    print(f"{out}: {', '.join(names)}; sheet.png has photographs above, reconstructions and coarser levels below")


def sample(
    context: typer.Context,
    model: ModelName,
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    n: Annotated[int, typer.Option("--n", min=1, help="Faces; a row, where levels are kept.")] = 10,
    seed: Seed = 0,
    temperature: Temperature = 1.0,
    finer_temperature: Annotated[
        float | None,
        typer.Option(min=0.0, help="The same below the coarsest level; `temperature` if not given."),
    ] = None,
    keep: Annotated[
        list[Path] | None, typer.Option(metavar="IMAGE", help="Keep this photograph's coarse levels; can be repeated.")
    ] = None,
    from_level: Annotated[
        int | None, typer.Option(min=1, help="Keep levels K ... this one: of --keep, or else of one sample.")
    ] = None,
    aligned: Aligned = False,
    params: Params = PARAMS_FILE,
) -> None:
    """Draw faces, or only the finer levels of given ones.

    With --keep each photograph has a row: the photograph, its reconstruction, n faces. Without --from-level it has a
    row for each level that may be the finest kept one.
    """
    from lapcvae.editing import sampling
    from lapcvae.editing.pictures import grid, save

    cascade = _open(context, model)
    if keep:
        rows = []
        for face in _faces(keep, cascade, params, aligned):
            shown = _stacked([face, cascade.reconstruct(face)[0].rebuilt])
            drawn = (
                sampling.rows_of_levels(cascade, face, n, seed, temperature, finer_temperature)
                if from_level is None
                else [sampling.keep_photograph(cascade, face, from_level, n, seed, temperature, finer_temperature)]
            )
            rows += [_stacked([shown, row]) for row in drawn]
        if not rows:
            raise ConfigError("a model of one level has no coarser level to keep; say --from-level 1 for all of it")
    elif from_level is not None:
        rows = [sampling.keep_sample(cascade, from_level, n, seed, temperature, finer_temperature)]
    else:
        rows = list(sampling.sample(cascade, n, seed, temperature, finer_temperature).split(10))
    save(grid(rows), out)
    print(f"{out}: {len(rows)} rows, seed {seed}, temperature {temperature:g}")


def edit(
    context: typer.Context,
    model: ModelName,
    image: Photograph,
    painted: Annotated[Path, typer.Option(metavar="FILE", help="The level that `reconstruct` wrote, painted on.")],
    level: Annotated[int, typer.Option(min=1, help="Which level was painted; finer ones are drawn.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    samples: Annotated[int, typer.Option(min=1, help="Faces to draw.")] = 4,
    mode: Annotated[Mode, typer.Option(help="Take what was painted as the model says it, or as it is.")] = "project",
    mask: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="White where the edit goes; else where the level changed."),
    ] = None,
    seed: Seed = 0,
    temperature: Temperature = 1.0,
    aligned: Aligned = False,
    params: Params = PARAMS_FILE,
) -> None:
    """Paint a coarse level of a face; draw the finer ones; blend the painted regions into its reconstruction."""
    from lapcvae.editing import paint
    from lapcvae.editing.photograph import open_picture
    from lapcvae.editing.pictures import enlarged, grid, pixels, save, sized

    cascade = _open(context, model)
    (face,) = _faces([image], cascade, params, aligned)
    picture = open_picture(painted, params)
    region = None if mask is None else paint.region(open_picture(mask, params), face.shape[-1])
    done = paint.edit(cascade, face, picture, level, samples, seed, mode, region, temperature)
    for i, one in enumerate(done.faces.split(1), 1):
        save(pixels(one), out / f"edited-{i:02d}.png")
    save(pixels(done.reconstruction), out / "reconstruction.png")
    save(pixels(enlarged(done.coarse)), out / f"level{level}.png")
    save(pixels(done.mask), out / "mask.png")
    asked = paint.fit(picture, done.coarse.shape[-1])
    steps = [face, done.reconstruction, asked, done.coarse, done.mask.expand(-1, 3, -1, -1)]
    save(grid([sized(steps, face.shape[-1]), done.drawn, done.faces]), out / "sheet.png")
    print(f"{out}: edited-01.png ... edited-{samples:02d}.png")
    print("sheet.png: photograph, reconstruction, painted level, what was gone on from, mask; faces drawn; blended in")


def interpolate(
    context: typer.Context,
    model: ModelName,
    start: Annotated[Path, typer.Argument(metavar="IMAGE", help="Photograph to begin with.")],
    end: Annotated[Path, typer.Argument(metavar="IMAGE", help="Photograph to end with.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    steps: Annotated[int, typer.Option(min=2, help="Faces a row.")] = 8,
    aligned: Aligned = False,
    params: Params = PARAMS_FILE,
) -> None:
    """Go from one face to another: all levels at once in the first row, then each level alone, coarsest first."""
    from lapcvae.editing.interpolation import rows_by_level
    from lapcvae.editing.pictures import grid, save

    cascade = _open(context, model)
    first, last = _faces([start, end], cascade, params, aligned)
    rows = rows_by_level(cascade, first, last, steps)
    save(grid([_stacked([first, row, last]) for row in rows]), out)
    print(f"{out}: all levels, then {', '.join(f'level {k}' for k in range(cascade.depth, 0, -1))} alone")


def _open(context: typer.Context, model: str) -> Cascade:
    from lapcvae.evaluation.trained import open_model

    return open_model(context.with_resource(context.obj(model)))


def _faces(images: Sequence[Path], cascade: Cascade, params: Path, aligned: bool) -> list[Tensor]:
    from lapcvae.editing.photograph import open_face

    return [open_face(path, cascade.level(1).side, params, aligned) for path in images]


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat(list(parts))


def _names(images: list[Path]) -> list[str]:
    """A name a photograph, numbered where two are called the same."""
    stems = [path.stem for path in images]
    return [stem if stems.count(stem) == 1 else f"{stem}-{i}" for i, stem in enumerate(stems, 1)]
