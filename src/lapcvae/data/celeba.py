"""CelebA from its makers' files: the aligned images with the official landmarks, splits and people."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lapcvae.config import load
from lapcvae.errors import SourceError
from lapcvae.io.archive import ArchiveLimits, Member, members

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


def verify(folder: Path, mirrors: Path) -> None:
    """Raise `SourceError` unless the files are there and have the published digests."""
    known = load(dict[str, str], "celeba", mirrors)
    for name, md5 in known.items():
        path = folder / name
        if not path.is_file():
            if name in _NEEDED:
                raise SourceError(
                    f"{path}: not found. Bring {', '.join(_NEEDED)} (and {IDENTITY}, {ATTRIBUTES} if you can) from "
                    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html into one folder and name it as source.path"
                )
            continue
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != md5:
            raise SourceError(
                f"{path}: MD5 is {found}, the published one is {md5}; fetch it again, or set source.verify to false "
                "if you mean to use other files"
            )


def read_official(folder: Path) -> dict[str, Official]:
    """What is known of each image, by its name. Raises `SourceError` for a line that is not as published."""
    points = {name: " ".join(values) for name, values in _table(folder / LANDMARKS, 10, heading=2)}
    splits = {name: values[0] for name, values in _table(folder / PARTITION, 1)}
    people = {name: values[0] for name, values in _table(folder / IDENTITY, 1)} if (folder / IDENTITY).is_file() else {}
    for name, split in splits.items():
        if split not in _SPLITS:
            raise SourceError(f"{folder / PARTITION}: {name} has split {split}, not 0, 1 or 2; fetch the file again")
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


def celeba_members(folder: Path, limits: ArchiveLimits) -> Iterator[tuple[Member, Official]]:
    """Every member of the image archive with what the makers say of it."""
    official = read_official(folder)
    nothing = Official("", "", "")
    for member in members(folder / IMAGES, limits):
        yield member, official.get(PurePosixPath(member.name).name, nothing)
