"""CelebA from its makers' files: the aligned images with the official landmarks, splits and people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lapcvae.config import load
from lapcvae.errors import SourceError
from lapcvae.io.archive import ArchiveLimits, Member, members
from lapcvae.io.fetch import copy_of

IMAGES = "img_align_celeba.zip"
LANDMARKS, PARTITION = "list_landmarks_align_celeba.txt", "list_eval_partition.txt"
IDENTITY, ATTRIBUTES = "identity_CelebA.txt", "list_attr_celeba.txt"
_NEEDED = (IMAGES, LANDMARKS, PARTITION)
_SPLITS = {"0": "train", "1": "val", "2": "test"}


@dataclass(frozen=True)
class Official:
    """What the makers say of one image; empty where they do not."""

    identity: str
    split: str  # train | val | test
    points: str  # x and y of the five points, pixels of the 178 x 218 image, ten numbers with spaces between


def locate(folder: Path, mirrors: Path, md5: Callable[[Path], str]) -> dict[str, Path]:
    """Where the makers' files lie, by name, each with its published digest, as `md5` of it says.

    A folder named in LAPCVAE_MIRRORS is searched first, then `folder`. Raises `SourceError` where one is missing that
    is needed, or is another file than the published one.
    """
    found = {}
    for name, published in load(dict[str, str], "celeba", mirrors).items():
        copy = copy_of(name, lambda path, wanted=published: md5(path) == wanted)  # type: ignore[misc]
        path = copy or folder / name
        if not path.is_file():
            _check_needed(path)
            continue
        if (found_md5 := md5(path)) != published:
            raise SourceError(
                f"{path}: MD5 is {found_md5}, the published one is {published}; fetch it again, or set "
                "source.verify to false if you mean to use other files"
            )
        found[name] = path
    return found


def unverified(folder: Path) -> dict[str, Path]:
    """The files of `folder` by name, whatever they hold. Raises `SourceError` where one is missing that is needed."""
    found = {name: folder / name for name in (*_NEEDED, IDENTITY, ATTRIBUTES) if (folder / name).is_file()}
    for name in _NEEDED:
        if name not in found:
            _check_needed(folder / name)
    return found


def _check_needed(path: Path) -> None:
    if path.name in _NEEDED:
        raise SourceError(
            f"{path}: not found. Bring {', '.join(_NEEDED)} (and {IDENTITY}, {ATTRIBUTES} if you can) from "
            "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html into one folder and name it as source.path"
        )


def read_official(files: dict[str, Path]) -> dict[str, Official]:
    """What is known of each image, by its name. Raises `SourceError` for a line that is not as published."""
    points = {name: " ".join(values) for name, values in _table(files[LANDMARKS], 10, heading=2)}
    splits = {name: values[0] for name, values in _table(files[PARTITION], 1)}
    people = {name: values[0] for name, values in _table(files[IDENTITY], 1)} if IDENTITY in files else {}
    for name, split in splits.items():
        if split not in _SPLITS:
            raise SourceError(f"{files[PARTITION]}: {name} has split {split}, not 0, 1 or 2; fetch the file again")
    names = points.keys() | splits.keys()
    return {n: Official(people.get(n, ""), _SPLITS.get(splits.get(n, ""), ""), points.get(n, "")) for n in names}


def _table(path: Path, columns: int, heading: int = 0) -> Iterator[tuple[str, list[str]]]:
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            words = line.split()
            if number <= heading or not words:
                continue
            if len(words) != columns + 1 or not all(word.lstrip("-").isdigit() for word in words[1:]):
                raise SourceError(f"{path}: line {number} is not a name and {columns} numbers; fetch the file again")
            yield words[0], words[1:]


def celeba_members(files: dict[str, Path], limits: ArchiveLimits) -> Iterator[tuple[Member, Official]]:
    """Every member of the image archive with what the makers say of it."""
    official = read_official(files)
    nothing = Official("", "", "")
    for member in members(files[IMAGES], limits):
        yield member, official.get(PurePosixPath(member.name).name, nothing)
