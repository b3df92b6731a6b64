"""What is kept of a shard's photographs as a whole saves going through them again, and changes no byte."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from lapcvae.config import load
from lapcvae.data import align as stage
from lapcvae.data import judge
from lapcvae.data.decode import DecodeConfig
from lapcvae.data.duplicates import DuplicatesConfig
from lapcvae.data.found import found_of, packed, unpacked
from lapcvae.data.judge import AlignConfig
from lapcvae.data.likeness import likeness_of
from lapcvae.data.manifest import Row, numbered, row_of, unnumbered
from lapcvae.data.photograph_writer import PhotographWriter
from lapcvae.data.split import SplitConfig
from lapcvae.io.atomic import sha256_file
from tests.data import made
from tests.data.flow import HERE, PARAMS, look_and_align


def _pack(photographs: dict[str, bytes], folder: Path) -> Path:
    """In shards of a few photographs each."""
    folder.mkdir(parents=True)
    with PhotographWriter(folder) as writer:
        writer.refuse("first", "", "not_a_file")
        for i, (name, data) in enumerate(photographs.items()):
            if i % 5 == 0:
                writer.cut()
            writer.store(name, name.split("/")[-2], data)
            writer.refuse(f"{name}.link", "", "not_a_file")
    return folder


def _aligned(work: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in (work / "aligned").iterdir()}


def test_photographs_between_known_ones_give_what_all_of_them_give_at_once(
    faces: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_BATCH", 20)  # several batches
    names = list(faces)
    few = dict(sorted((n, faces[n]) for n in names[::2]))
    # Among the new ones the known ones again, in the same pixels and nearly so, under people of any split.
    again = {f"x/{chr(97 + i)} again/1.png": made.encode(Image.open(io.BytesIO(faces[n]))) for i, n in enumerate(few)}
    near = {
        f"x/{chr(65 + i)} nearly/1.jpg": made.encode(Image.open(io.BytesIO(faces[n])), "JPEG", quality=70)
        for i, n in enumerate(few)
    }
    all_of_them = dict(sorted((faces | again | near).items()))
    work = tmp_path / "work"
    look_and_align(_pack(few, tmp_path / "few"), work)
    before = _aligned(work)
    raw = _pack(all_of_them, tmp_path / "all")
    counts = look_and_align(raw, work)
    assert counts["duplicate"] > 10
    assert counts["near_duplicate_across_splits"] > 0
    assert counts == look_and_align(raw, tmp_path / "afresh")
    assert _aligned(work) == _aligned(tmp_path / "afresh")
    look_and_align(tmp_path / "few", work)
    assert _aligned(work) == before


def test_of_what_is_known_nothing_is_judged_again(
    faces: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []

    def counted(row: Row, *others: object) -> object:
        judged.append(row.name)
        return face_of(row, *others)  # type: ignore[arg-type]

    face_of = judge._face
    monkeypatch.setattr(judge, "_face", counted)
    work, raw = tmp_path / "work", _pack(faces, tmp_path / "raw")
    look_and_align(raw, work)
    assert len(judged) == len(faces)
    before = _aligned(work)
    look_and_align(raw, work)
    assert len(judged) == len(faces)
    assert _aligned(work) == before


@pytest.mark.parametrize("lost", ["faces-64.sqlite", "faces-64.pixels.bin", "found.sqlite"])
def test_a_part_of_the_cache_may_be_lost(faces: dict[str, bytes], tmp_path: Path, lost: str) -> None:
    work, raw = tmp_path / "work", _pack(faces, tmp_path / "raw")
    look_and_align(raw, work)
    before = _aligned(work)
    (work / "cache" / lost).unlink()
    look_and_align(raw, work)
    assert _aligned(work) == before


def _strict(rules: AlignConfig, split: SplitConfig, source: str) -> tuple[AlignConfig, SplitConfig, str]:
    return replace(rules, max_rotation_deg=3.0), split, source


def _contrasty(rules: AlignConfig, split: SplitConfig, source: str) -> tuple[AlignConfig, SplitConfig, str]:
    return replace(rules, min_contrast=50.0), split, source


def _salted(rules: AlignConfig, split: SplitConfig, source: str) -> tuple[AlignConfig, SplitConfig, str]:
    return rules, replace(split, salt="another"), source


def _renamed(rules: AlignConfig, split: SplitConfig, source: str) -> tuple[AlignConfig, SplitConfig, str]:
    return rules, split, "another"


@pytest.mark.parametrize("other", [_strict, _contrasty, _salted, _renamed])
def test_other_rules_find_nothing_known(
    other: Callable[[AlignConfig, SplitConfig, str], tuple[AlignConfig, SplitConfig, str]],
    faces: dict[str, bytes],
    tmp_path: Path,
) -> None:
    raw = _pack(faces, tmp_path / "raw")
    look_and_align(raw, tmp_path / "work")
    before = _aligned(tmp_path / "work")
    rules, split, source = other(load(AlignConfig, "align", PARAMS), load(SplitConfig, "split", PARAMS), "test")
    for cache in ("work", "afresh"):
        stage.align(
            stage.AlignInputs(raw, tmp_path / "work" / "landmarks.csv", source),
            tmp_path / f"{cache} 2" / "aligned",
            tmp_path / cache / "cache",
            rules,
            load(DecodeConfig, "decode", PARAMS),
            split,
            load(DuplicatesConfig, "duplicates", PARAMS),
            HERE,
        )
    assert _aligned(tmp_path / "work 2") == _aligned(tmp_path / "afresh 2") != before


def test_found_comes_back_from_its_bytes() -> None:
    rows = [
        Row('a, "b"\\n', "s", "p,q", "1" * 64, "accepted", row=0, split="val", pixels_sha256="2" * 64, phash="3" * 64),
        Row("c", "s", "", "", "rejected", "not_a_file"),
        Row("é", "s", "", "4" * 64, "rejected", "flat", split="test", pixels_sha256="5" * 64, phash="6" * 64),
    ]
    found = found_of(rows, [b"k" * 16, b"", b"l" * 16], likeness_of([rows[0], rows[2]]))
    assert unpacked(packed(found)) == found
    assert found.states == bytes([2, 0, 1])
    assert found.faces == [b"k" * 16]
    assert found.likeness.ranks == bytes([1, 2])


def test_lines_get_their_numbers_and_nothing_else() -> None:
    names = ["plain", "a, b", 'a "b"', '"', ",", "b'", "%d", "é"]
    rows = [Row(name, "s", name, "1" * 64, "accepted", row=0, split="val", brightness=1.5) for name in names]
    rows.insert(3, Row("r", "s", "", "", "rejected", "not_a_file"))
    text = "".join(map(unnumbered, rows)).encode()
    again = [row_of(fields) for fields in csv.reader(numbered(text, 998).decode().splitlines())]
    assert [row.row for row in again] == [998, 999, 1000, -1, 1001, 1002, 1003, 1004, 1005]
    assert [replace(row, row=min(row.row, 0)) for row in again] == rows
