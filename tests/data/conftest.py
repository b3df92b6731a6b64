"""Real faces from the embedded sample, and small packed folders made of them."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lapcvae.data.photograph_writer import PhotographWriter

SAMPLE = Path(__file__).parents[2] / "data" / "samples" / "lfw-sample.tgz"


@pytest.fixture(scope="session")
def faces() -> dict[str, bytes]:
    """The first 40 photographs of the sample: member name to JPEG bytes."""
    found: dict[str, bytes] = {}
    with tarfile.open(SAMPLE) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            assert stream is not None
            found[member.name] = stream.read()
            if len(found) == 40:
                break
    return found


@pytest.fixture
def pack(tmp_path: Path) -> Callable[[dict[str, bytes]], Path]:
    """Pack photographs by name; the person is the name's folder."""

    def packed(photographs: dict[str, bytes], folder: str = "raw") -> Path:
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        with PhotographWriter(path) as writer:
            for name, data in photographs.items():
                writer.store(name, name.split("/")[-2] if "/" in name else "", data)
        return path

    return packed
