"""As many different photographs as wanted, made from the embedded sample, packed as the `download` stage packs them."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from lapcvae.data.photographs import PhotographWriter

SAMPLE = Path(__file__).parents[1] / "data" / "samples" / "lfw-sample.tgz"


def sample() -> dict[str, bytes]:
    """The embedded photographs, by name."""
    with tarfile.open(SAMPLE) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def variants(count: int) -> Iterator[tuple[str, str, bytes]]:
    """`count` photographs as (name, person, bytes): first the sample itself, then the same people a little changed.

    The changes (brightness, one corner) make other pixels and other bytes, so that nothing is a duplicate.
    """
    originals = list(sample().items())
    for i in range(count):
        name, data = originals[i % len(originals)]
        person, turn = name.split("/")[-2], i // len(originals)
        if turn:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            image = cv2.convertScaleAbs(image, alpha=1 - 0.001 * (turn % 200), beta=turn % 7)
            image[:8, :8] = turn % 256
            data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 75])[1].tobytes()
        yield f"{person}/{turn:04d}.jpg", person, data


def pack(folder: Path, count: int, points: dict[str, str] | None = None) -> None:
    """Write `count` photographs as a packed folder; with `points` (by person) no detector is needed for them."""
    folder.mkdir(parents=True, exist_ok=True)
    with PhotographWriter(folder) as writer:
        for name, person, data in variants(count):
            writer.store(name, person, data, points=(points or {}).get(person, ""))
