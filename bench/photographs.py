"""As many different photographs as wanted, made from the embedded sample, packed as the `download` stage packs them."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lapcvae.data.photograph_writer import PhotographWriter

SIDE = 250  # pixels, of the sample's photographs
SAMPLE = Path(__file__).parents[1] / "data" / "samples" / "lfw-sample.tgz"


def sample() -> dict[str, bytes]:
    """The embedded photographs, by name."""
    with tarfile.open(SAMPLE) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]


def variants(count: int, side: int = SIDE, first: int = 0) -> Iterator[tuple[str, str, bytes]]:
    """`count` photographs as (name, person, bytes): first the sample itself, then the same people a little changed.

    The changes (brightness, and smooth patches around the face) make other pixels, other bytes and other perceptual
    hashes, so that nothing is nearly a duplicate of anything. `side`: pixels, of all but the first. `first`: how many
    are left out at the beginning.
    """
    originals = list(sample().items())
    outside: np.ndarray = np.ones((SIDE, SIDE, 1), np.float32)
    outside[50:200, 60:190] = 0
    outside = cv2.GaussianBlur(outside, (0, 0), 8)[..., None]
    for i in range(first, count):
        name, data = originals[i % len(originals)]
        person, turn = name.split("/")[-2], i // len(originals)
        if turn:
            image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            patches: Any = np.random.default_rng(i).uniform(-200, 200, (9, 9)).astype(np.float32)
            patches = cv2.resize(patches, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)[..., None]
            image = np.clip(image * (1 - 0.001 * (turn % 200)) + outside * patches, 0, 255).astype(np.uint8)
            if side != SIDE:
                image = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
            data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 75])[1].tobytes()
        yield f"{person}/{turn:04d}.jpg", person, data


def _of_one_size(count: int, side: int) -> Iterator[tuple[str, str, bytes]]:
    first = 0 if side == SIDE else len(sample())
    return itertools.islice(variants(count + first, side), first, None)


def pack(folder: Path, count: int, points: dict[str, str] | None = None, side: int = SIDE) -> None:
    """Write `count` photographs as a packed folder; with `points` (by person) no detector is needed for them."""
    if points and side != SIDE:
        points = {p: " ".join(str((float(v) + 0.5) * side / SIDE - 0.5) for v in t.split()) for p, t in points.items()}
    folder.mkdir(parents=True, exist_ok=True)
    with PhotographWriter(folder) as writer:
        for name, person, data in _of_one_size(count, side):
            writer.store(name, person, data, points=(points or {}).get(person, ""))
