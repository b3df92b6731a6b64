"""Gaussian levels of a whole data set as packed arrays, and the per-level statistics that networks normalise with.

Files: x1.npy, N S S 3 uint8 (the photographs; a flipped one is flipped on reading), and for k > 1 xk.npy, N 2 s s 3
fp16 in [0, 1], where axis 1 is the orientation (0 as is, 1 mirrored): reducing does not commute with mirroring, so a
mirrored face has coarse levels of its own.

A band is the difference of a stored level and the stored next one, expanded, so collapsing is exact whatever fp16
rounded away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from lapcvae.errors import DataError
from lapcvae.io.cache import key_of
from lapcvae.io.memory import held_memory
from lapcvae.io.progress import progress
from lapcvae.io.record_store import DIGEST_BYTES, RecordStore, write_record
from lapcvae.pyramid.filters import PyramidKind, band, reduce

_PART_BYTES = 3 << 17  # of photographs, worked on at once; more of them take more memory
_WAITING = 4096  # photographs, at most, that wait for new ones among them
_FORMAT = "4"  # part of the cache key; raise it when the filters or what is kept of a photograph change


def precompute(
    images: np.ndarray, training: np.ndarray, sides: list[int], kind: PyramidKind, folder: Path, cache: Path | None
) -> tuple[dict[str, Any], str]:
    """Write x1.npy ... xK.npy into `folder`; returns statistics over the rows where `training` is true, and a digest.

    images: N S S 3 uint8. training: N bool. cache: folder of what was worked out before, by content, so that only new
    photographs are worked on; None: all are. Statistics, per level, on the [0, 1] scale: `mean` and `std` of x_k (per
    channel), `band_std` of h_k (one number; at level K that of x_K around its mean). The digest is the SHA-256 of the
    images' own, one after the other.
    Raises `DataError` when there is nothing to train on.
    """
    if not training.any():
        raise DataError("no accepted photograph is in the training split; add photographs or change `split`")
    count, one = len(images), _Layout(tuple(sides))
    moments, digest = np.zeros(one.moments), sha256()
    with (
        nullcontext() if cache is None else RecordStore(cache / "-".join(map(str, sides)), one.lengths) as kept,
        ExitStack() as open_files,
        held_memory(torch.device("cpu")),
        progress(total=count, label="pyramid", unit="image") as bar,
    ):
        out = [open_files.enter_context(_new(folder / "x1.npy", (count, sides[0], sides[0], 3), np.uint8))]
        for k, side in enumerate(sides[1:], 2):
            out.append(open_files.enter_context(_new(folder / f"x{k}.npy", (count, 2, side, side, 3), np.float16)))
        photographs, row = _copied(images, out[0], digest), 0
        worked = _afresh(photographs, one, kind) if kept is None else _from_store(photographs, kept, one, kind)
        for found, levels in worked:
            for stream, level in zip(out[1:], levels, strict=True):
                stream.writelines(level)
            for of_one in found[training[row : row + len(found)]]:  # so that no sum depends on how many come at once
                moments += of_one
            row += len(found)
            bar.update(len(found))
    return _statistics(moments, int(training.sum()), sides), digest.hexdigest()


@dataclass(frozen=True)
class _Layout:
    """What is kept of one photograph: levels 2 to K, fp16, each in both orientations; beside them its moments."""

    sides: tuple[int, ...]

    @property
    def moments(self) -> tuple[int, ...]:
        """Level; image or band; sum or sum of squares; channel: float64 over the pixels of both orientations."""
        return (len(self.sides), 2, 2, 3)

    @property
    def lengths(self) -> dict[str, int]:
        """Bytes of each level, by name."""
        return {f"x{k}": 2 * side * side * 3 * 2 for k, side in enumerate(self.sides[1:], 2)}

    def unpack(self, made: list[bytes]) -> np.ndarray:
        """The moments of B photographs (B K 2 2 3), from what was made beside the levels."""
        table = np.frombuffer(b"".join(made), np.uint8).reshape(len(made), -1)[:, DIGEST_BYTES:]
        return np.ascontiguousarray(table).view(np.float64).reshape(len(made), *self.moments)


def _copied(images: np.ndarray, stream: IO[bytes], digest: Any) -> Iterator[tuple[list[bytes], np.ndarray]]:
    """Some photographs after the other, as they are written to `stream`, with their digests, added to `digest`."""
    for part in _in_parts(images):
        stream.write(part.data)
        digests = [sha256(image).digest() for image in part]
        digest.update(b"".join(digests))
        yield digests, part


# Of some photographs, in order: their moments, and each level as pieces to be written one after the other.
_Worked = Iterator[tuple[np.ndarray, list[Iterable[bytes]]]]


def _afresh(photographs: Iterator[tuple[list[bytes], np.ndarray]], one: _Layout, kind: PyramidKind) -> _Worked:
    for _, part in photographs:
        moments, levels = _work_out(part, one, kind)
        yield moments, [[level.tobytes()] for level in levels]


def _from_store(
    photographs: Iterator[tuple[list[bytes], np.ndarray]], kept: RecordStore, one: _Layout, kind: PyramidKind
) -> _Worked:
    """What is known is read; new ones wait for each other, as a few at a time take as long as many."""
    keys: list[bytes] = []
    known: dict[bytes, tuple[bytes, int]] = {}
    new: dict[bytes, np.ndarray] = {}  # of equal photographs one

    def levels() -> tuple[np.ndarray, list[Iterable[bytes]]]:
        if new:
            known.update(_keep(kept, new, one, kind))
        places = [known[key][1] for key in keys]
        return one.unpack([known[key][0] for key in keys]), [kept.read(name, places) for name in one.lengths]

    for digests, part in photographs:
        some = [key_of(_FORMAT, kind, repr(list(one.sides)), each.hex()) for each in digests]
        keys += some
        known |= kept.find(some)
        new |= {key: image.copy() for key, image in zip(some, part, strict=True) if key not in known}
        if len(keys) >= _WAITING or len(new) * part[0].nbytes >= _PART_BYTES:
            yield levels()
            keys, known, new = [], {}, {}
    if keys:
        yield levels()


def _keep(
    kept: RecordStore, images: dict[bytes, np.ndarray], one: _Layout, kind: PyramidKind
) -> dict[bytes, tuple[bytes, int]]:
    """Work out some images and keep what was made of them, by key; returns it as `RecordStore.find` does."""
    moments, levels = _work_out(np.stack(list(images.values())), one, kind)
    fresh = {}
    for i, (key, place) in enumerate(zip(images, kept.reserve(len(images)), strict=True)):
        parts = [level[i].tobytes() for level in levels]
        for file, part in zip(kept.files.values(), parts, strict=True):
            write_record(file, place, part)
        fresh[key] = sha256(b"".join(parts)).digest() + moments[i].tobytes(), place
    kept.keep((key, place, made) for key, (made, place) in fresh.items())
    return fresh


def _work_out(images: np.ndarray, one: _Layout, kind: PyramidKind) -> tuple[np.ndarray, list[np.ndarray]]:
    """Moments (B K 2 2 3) and levels 2 to K (B 2 s s 3 fp16) of images B S S 3 uint8.

    Nothing of an image depends on what else is in the batch.
    """
    depth, count = len(one.sides), len(images)
    levels = [np.empty((count, 2, side, side, 3), np.float16) for side in one.sides[1:]]
    moments = np.zeros((count, *one.moments))
    for flip in (0, 1):
        x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255
        x = x.flip(-1) if flip else x
        for k in range(depth):
            moments[:, k, 0] += _sums(x)
            if k + 1 == depth:
                moments[:, k, 1] += _sums(x)  # the band of level K is its image
                break
            coarse = reduce(x, kind).half()
            levels[k][:, flip] = coarse.permute(0, 2, 3, 1).numpy()
            coarse = coarse.float()
            moments[:, k, 1] += _sums(band(x, coarse, kind))
            x = coarse
    return moments, levels


def _sums(x: torch.Tensor) -> np.ndarray:
    """Sum and sum of squares of each image's channels: B C H W to B 2 C float64."""
    values = x.double().flatten(2).numpy()
    return np.stack([values.sum(2), np.einsum("bcn,bcn->bc", values, values)], 1)


def _statistics(moments: np.ndarray, count: int, sides: list[int]) -> dict[str, Any]:
    pixels = np.array([2 * count * side * side for side in sides])[:, None, None]
    mean = moments[:, :, 0] / pixels
    std = np.sqrt(np.maximum(moments[:, :, 1] / pixels - mean**2, 1e-12))
    return {
        str(k + 1): {
            "side": side,
            "mean": mean[k, 0].tolist(),
            "std": std[k, 0].tolist(),
            "band_std": float(np.sqrt(np.mean(np.square(std[k, 1])))),
        }
        for k, side in enumerate(sides)
    }


def _in_parts(images: np.ndarray) -> Iterator[np.ndarray]:
    """Some rows of an array after the other; a mapped file is read, not mapped, so that memory stays flat."""
    size = int(np.prod(images.shape[1:]))
    most = max(1, _PART_BYTES // size)
    for start in range(0, len(images), most):
        rows = min(most, len(images) - start)
        if isinstance(images, np.memmap):
            shape = (rows, *images.shape[1:])
            place = images.offset + start * size * images.itemsize
            yield np.fromfile(str(images.filename), images.dtype, rows * size, offset=place).reshape(shape)
        else:
            yield np.ascontiguousarray(images[start : start + rows])


@contextmanager
def _new(path: Path, shape: tuple[int, ...], dtype: Any) -> Iterator[IO[bytes]]:
    """A .npy file of that shape, to be written row by row; not mapped, for the same reason."""
    with path.open("wb", buffering=1 << 20) as stream:
        described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, described)
        yield stream
