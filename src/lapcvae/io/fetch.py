"""Files by digest: from a path or another place where a copy may lie, believed only when size and SHA-256 agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lapcvae.errors import SourceError
from lapcvae.io.atomic import sha256_file


@dataclass(frozen=True)
class RemoteFile:
    """A file known by content: `bytes` long with hex digest `sha256`, to be had at any of `mirrors`."""

    name: str
    sha256: str
    bytes: int
    mirrors: tuple[str, ...]


def check(path: Path, sha256: str, size: int | None = None) -> None:
    """Raise `SourceError` unless `path` is a file of `size` bytes (if known) with that digest."""
    if not path.is_file():
        raise SourceError(f"{path}: no such file; check the path, or fetch the file again")
    found = path.stat().st_size
    if size is not None and found != size:
        kind = "truncated" if found < size else "another file"
        raise SourceError(f"{path}: {found:,} bytes where {size:,} are expected ({kind}); fetch it again")
    digest = sha256_file(path)
    if digest != sha256.lower():
        raise SourceError(
            f"{path}: SHA-256 is {digest}, expected {sha256}; it is damaged or another file, fetch it again"
        )


def fetch(file: RemoteFile) -> Path:
    """A path where `file` lies, verified. Raises `SourceError` when no mirror has it, saying what each answered."""
    problems = []
    for mirror in file.mirrors:
        try:
            check(Path(mirror), file.sha256, file.bytes)
        except SourceError as error:
            problems.append(str(error))
        else:
            return Path(mirror)
    raise SourceError(f"{file.name}: no mirror has it:\n  " + "\n  ".join(problems))
