"""The manifest: one row a photograph, accepted or rejected, beside one packed array of the accepted ones."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from operator import attrgetter, itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any

from lapcvae.data.csv_line import line_of
from lapcvae.errors import DataError


@dataclass(slots=True)
class Row:
    """One photograph, filled in as more is known of it. What a rejected one did not come to be measured for is 0."""

    name: str  # as in the source, escaped to one printable line
    source: str  # the kind of source it came from
    identity: str  # the person, as far as the source says
    sha256: str  # of the original bytes
    status: str  # accepted | rejected
    reason: str = ""  # one of `reasons.REASONS` if rejected
    row: int = -1  # of images.npy, -1 if rejected
    split: str = ""  # train | val | test if accepted
    group: str = ""  # what never crosses a split: the person, or else the photograph itself
    near: str = ""  # names the group of near-duplicates it is in; empty if it is in none
    pixels_sha256: str = ""  # of the decoded original pixels
    aligned_sha256: str = ""  # of the aligned pixels
    phash: str = ""  # 16 x 16 perceptual hash of the photograph, hex
    width: int = 0  # pixels, upright
    height: int = 0
    faces: int = 0  # found in the photograph
    score: float = 0.0  # of the chosen face, 0 to 1
    residual: float = 0.0  # of the five points to the template, share of the eye distance
    rotation_deg: float = 0.0  # that the alignment undid
    eye_distance_px: float = 0.0  # in the source photograph
    sharpness: float = 0.0  # variance of the Laplacian, whole photograph
    brightness: float = 0.0  # mean grey value of the aligned face, 0 to 255
    contrast: float = 0.0  # standard deviation of the same
    aligned_sharpness: float = 0.0  # variance of the Laplacian of the same
    border_share: float = 0.0  # of the crop, filled by reflection, 0 to 1
    black_share: float = 0.0  # of the crop, black, 0 to 1


COLUMNS = tuple(f.name for f in fields(Row))
values_of = attrgetter(*COLUMNS)  # a row's values, in the order of the columns
TYPES: dict[str, Any] = {f.name: {"int": int, "float": float, "str": str}[str(f.type)] for f in fields(Row)}
_ROW = COLUMNS.index("row")
_OPEN = "\0"  # no name has one (see `names.printable`)
_BUFFER_BYTES = 1 << 20  # of images, written at a time
_NUMBERS = [(place, kind) for place, kind in enumerate(TYPES.values()) if kind is not str]


class ManifestWriter:
    """Writes rows to a CSV file as they come; a context manager."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb")
        self._stream.write(line_of(COLUMNS).encode())

    def __enter__(self) -> ManifestWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def write(self, rows: Iterable[Row]) -> None:
        """Append some rows."""
        self._stream.writelines(line_of(values_of(row)).encode() for row in rows)

    def write_text(self, lines: bytes) -> None:
        """Append rows that have been written elsewhere, as their lines."""
        self._stream.write(lines)


def read_manifest(path: Path) -> Iterator[Row]:
    """The manifest's rows in order. Raises `DataError` where there is no such file or its columns are others."""
    return map(row_of, read_fields(path))


def read_texts(path: Path, *columns: str) -> Iterator[tuple[str, ...]]:
    """Some columns (at least two) of every row, as they are written: a fraction of the time of `read_manifest`.

    Raises `DataError` as `read_manifest` does.
    """
    places = [COLUMNS.index(column) for column in columns]
    wanted, after = itemgetter(*places), max(places) + 1
    # Without a quote in a line, what is before a comma needs no csv module, and what is after the last column no look.
    return (
        wanted(next(csv.reader([line])) if '"' in line else line.rstrip("\n").split(",", after))
        for line in _lines(path)
    )


def read_fields(path: Path) -> Iterator[list[str]]:
    """All columns of every row, as they are written. Raises `DataError` as `read_manifest` does."""
    return csv.reader(_lines(path))


def _lines(path: Path) -> Iterator[str]:
    if not path.is_file():
        raise DataError(f"{path}: not found; run `dvc repro align` first")
    with path.open(encoding="utf-8", newline="\n") as stream:
        if next(stream, "") != line_of(COLUMNS):
            raise DataError(f"{path}: its columns are not those of this version; run `dvc repro --force align`")
        yield from stream


def row_of(texts: list[str]) -> Row:
    """The row that a line of the manifest holds, given as its fields."""
    values: list[Any] = texts
    for place, kind in _NUMBERS:
        values[place] = kind(values[place])
    return Row(*values)


def unnumbered(row: Row) -> str:
    """A row's line; where the row has a place in images.npy, that is left open until `numbered`."""
    values = values_of(row)
    return line_of(values if row.row < 0 else [*values[:_ROW], _OPEN, *values[_ROW + 1 :]])


def numbered(lines: bytes, first: int) -> bytes:
    """Lines of `unnumbered`, whose open places are filled in with `first` and the numbers after it."""
    head, *rest = lines.split(_OPEN.encode())
    return head + b"".join(b"%d%b" % place_and_text for place_and_text in enumerate(rest, first))


class ImagesWriter:
    """Writes a .npy file of uint8 (N, size, size, 3) whose N is known only at the end; a context manager."""

    _HEADER_BYTES = 128
    _FLUSH_BYTES = 64 << 20

    def __init__(self, path: Path, size: int) -> None:
        self._stream = path.open("w+b", buffering=_BUFFER_BYTES)
        self._size = size
        # The disk works beside the rest, so that flushing the whole file at the end is not waited for.
        self._disk = ThreadPoolExecutor(1)
        self._flushed: Future[None] = self._disk.submit(lambda: None)
        self._waiting_bytes = 0
        self._stream.write(bytes(self._HEADER_BYTES))
        self._length, self._bytes = size * size * 3, 0

    def __enter__(self) -> ImagesWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disk.shutdown()
        try:
            if error is None:
                self._flushed.result()
                self._stream.seek(0)
                self._stream.write(self._header())
        finally:
            self._stream.close()

    @property
    def count(self) -> int:
        """Images written so far."""
        return self._bytes // self._length

    def append(self, pixels: bytes) -> None:
        """Append pixels of images that follow each other; where this ends within one, the next call goes on."""
        self._stream.write(pixels)
        self._waiting_bytes += len(pixels)
        self._bytes += len(pixels)
        if self._waiting_bytes >= self._FLUSH_BYTES and self._flushed.done():
            self.flush()

    def flush(self) -> None:
        """Have the disk begin to write what it has been given so far."""
        self._flushed.result()  # what the disk refused is told once, and here
        self._waiting_bytes = 0
        self._stream.flush()
        self._flushed = self._disk.submit(os.fsync, self._stream.fileno())

    def remove(self, rows: Sequence[int]) -> None:
        """Take out the images of some rows, given in ascending order; those after them move up."""
        if not rows:
            return
        target, length = rows[0], self._length
        for first, last in itertools.pairwise([*rows, self.count]):
            for row in range(first + 1, last):
                self._stream.seek(self._HEADER_BYTES + row * length)
                data = self._stream.read(length)
                self._stream.seek(self._HEADER_BYTES + target * length)
                self._stream.write(data)
                target += 1
        self._bytes = target * length
        self._stream.truncate(self._HEADER_BYTES + self._bytes)

    def _header(self) -> bytes:
        shape = (self.count, self._size, self._size, 3)
        text = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
        length = self._HEADER_BYTES - 10
        return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1) + b"\n"
