"""A folder that nobody has looked at: every entry is accounted for, and no bad one costs a good one."""

from __future__ import annotations

import io
import os
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lapcvae.data.names import printable
from lapcvae.data.reasons import REASONS
from tests.data import made
from tests.data.flow import PARAMS, whole

SAMPLE = Path(__file__).parents[2] / "data" / "samples" / "lfw-sample.tgz"

ODD_NAMES = (
    "with space.jpg",
    'quote\'s "double".jpg',
    "new\nline.jpg",
    "tab\there.jpg",
    "$(touch gone); `id` && *.jpg",
    "%s%n%d{0}.jpg",
    "-rf.jpg",
    "--help",
    "comma,semicolon;.jpg",
    "=cmd()|x.jpg",
    "back\\slash.jpg",
    "caf\u00e9.jpg",
    "cafe\u0301.jpg",
    "\u65e5\u672c\u8a9e.jpg",
    "\u202egpj.exe.jpg",
    "CASE.jpg",
    "case.jpg",
    "n" * 251 + ".jpg",
)


@pytest.fixture(scope="module")
def photographs() -> list[bytes]:
    with tarfile.open(SAMPLE) as tar:
        members = [tar.next() for _ in range(60)]
        return [tar.extractfile(m).read() for m in members if m is not None]  # type: ignore[union-attr]


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_every_kind_of_file(photographs: list[bytes], tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    face, other, *more = photographs
    unreadable = made.unreadable(face)
    faceless = made.faceless(face, other)
    good = {f"good{i}.jpg": data for i, data in enumerate(more[:10])}
    write(folder, good)
    write(folder, {name: data for name, (data, _) in unreadable.items()})
    write(folder, {name: data for name, (data, _) in faceless.items()})
    write(folder, {"empty.jpg": b"", "painted.png": made.painted(), ".hidden.jpg": face, "Thumbs.db": b"x"})
    write(folder, {"folder.jpg/inside.jpg": more[10], "large_file.jpg": more[11] + bytes(300_000)})
    (folder / "link.jpg").symlink_to(folder / "good0.jpg")
    (folder / "outside.jpg").symlink_to("/etc/passwd")
    (folder / "dangling.jpg").symlink_to(folder / "none")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "fifo.jpg")
    special = ["link.jpg", "outside.jpg", "dangling.jpg", "loop", "fifo.jpg", "socket.jpg"]
    if os.geteuid() == 0:  # nobody else may make a device
        os.mknod(folder / "endless.jpg", stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero
        special.append("endless.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(folder)  # socket names are short
        server.bind("socket.jpg")
        os.chdir(Path(__file__).parents[2])
        before = sorted(tmp_path.rglob("*"))
        rows = whole(folder, tmp_path / "work", identity="none", max_file_bytes=300_000)
    outcome = {r.name: r.reason for r in rows}

    count = sum(1 for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    assert len(rows) == len(outcome) == count
    assert all((r.status == "accepted") == (r.reason == "") and r.reason in {"", *REASONS} for r in rows)
    for name in good:
        assert outcome[name] == "", name
    for name, (_, reason) in unreadable.items():
        assert outcome[name] == reason, name
    for name, (_, reasons) in faceless.items():
        assert outcome[name] in reasons, name
    assert outcome["empty.jpg"] == "empty"
    assert outcome["painted.png"] in ("no_face", "poor_fit")
    assert outcome["folder.jpg/inside.jpg"] == ""
    assert outcome["large_file.jpg"] == "file_too_large"
    assert outcome[".hidden.jpg"] == outcome["Thumbs.db"] == "system_file"
    for name in special:
        assert outcome[name] == "not_a_file", name
    # Nothing was written but the work folder, and what was there is untouched.
    assert [p for p in sorted(tmp_path.rglob("*")) if (tmp_path / "work") not in (p, *p.parents)] == before


def test_every_form_of_a_photograph_is_one_face(photographs: list[bytes], tmp_path: Path) -> None:
    forms = made.readable(photographs[0])
    write(tmp_path / "in", forms)
    rows = whole(tmp_path / "in", tmp_path / "work", identity="none")
    # All show the same photograph: kept, or left out as the same; none is lost for its form.
    assert {r.reason for r in rows} <= {"", "duplicate", "near_duplicate_across_splits"}
    assert len({r.near for r in rows if r.near}) == 1
    assert all(r.faces >= 1 for r in rows)
    assert len(rows) == len(forms)


def test_odd_names(photographs: list[bytes], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = [os.fsencode(name) for name in ODD_NAMES] + [b"not\xffutf8.jpg"]
    for name, data in zip(names, photographs, strict=False):
        (folder / os.fsdecode(name)).write_bytes(data)
    rows = whole(tmp_path / "in", tmp_path / "work", identity="none")
    assert {r.name for r in rows} == {printable(os.fsdecode(name)) for name in names}
    assert Counter(r.reason for r in rows)[""] >= len(names) - 1
    assert (tmp_path / "work" / "aligned" / "manifest.csv").read_text().count("\n") == len(rows) + 1


def test_nothing_of_the_original_but_pixels_goes_into_the_outputs(photographs: list[bytes], tmp_path: Path) -> None:
    secret = "gps 51.4545 N secret note"
    write(tmp_path / "in", {"a.jpg": made.with_exif(Image.open(io.BytesIO(photographs[0])), 1, secret)})
    rows = whole(tmp_path / "in", tmp_path / "work", identity="none")
    assert rows[0].status == "accepted"
    outputs = [*(tmp_path / "work" / "aligned").iterdir(), tmp_path / "work" / "landmarks.csv"]
    assert len(outputs) == 3
    assert all(secret.encode() not in p.read_bytes() for p in outputs)
    assert np.load(tmp_path / "work" / "aligned" / "images.npy").shape == (1, 64, 64, 3)


def test_an_archive_with_every_bad_member(photographs: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("good/1.jpg", "../up.jpg", "/etc/absolute.jpg", "a/../../b.jpg", "twice.jpg", "twice.jpg"):
            entry = tarfile.TarInfo(name)
            data = photographs[len(tar.getmembers())]
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for i in range(20_000):
            tar.addfile(tarfile.TarInfo(f"empty/{i}.jpg"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            entry = tarfile.TarInfo(f"special{kind.decode()}.jpg")
            entry.type, entry.linkname = kind, "../../../etc/passwd"
            tar.addfile(entry)
    before = sorted(tmp_path.iterdir())
    rows = whole(path, tmp_path / "work", identity="none")
    assert Counter(r.reason for r in rows) == {"": 6, "empty": 20_000, "not_a_file": 4}
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "work"])


def test_a_zip_with_every_bad_member(photographs: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # of the name that comes twice
        for i, name in enumerate(("1.jpg", "../up.jpg", "/etc/absolute.jpg", "C:\\x.jpg", "twice.jpg", "twice.jpg")):
            archive.writestr(name, photographs[i])
        archive.writestr("damaged.jpg", photographs[6])
        archive.writestr("texts.zip", b"PK\x05\x06" + bytes(18))  # an archive within is no photograph
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        for i in range(20_000):
            archive.writestr(f"empty/{i}.jpg", b"")
    data = path.read_bytes()
    path.write_bytes(data.replace(photographs[6], photographs[6][:-40] + bytes(40)))
    before = sorted(tmp_path.iterdir())
    rows = whole(path, tmp_path / "work", identity="none")
    assert Counter(r.reason for r in rows) == {
        "": 6,
        "empty": 20_000,
        "unreadable": 1,
        "not_an_image": 1,
        "not_a_file": 1,
    }
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "work"])


def test_bombs_are_refused_in_little_memory(photographs: list[bytes], tmp_path: Path) -> None:
    image = Image.open(io.BytesIO(photographs[0]))
    whole_frame = made.encode(Image.new("RGB", (7100, 7100)), "PNG", compress_level=1)  # 50.4 million pixels, all there
    bombs = {
        "claims.png": made.png_claiming(60_000, 60_000),
        "all_there.png": whole_frame,
        "claims.gif": _gif_claiming(65_000, 65_000),
        "claims.bmp": _claiming(made.encode(image, "BMP"), 18, "<ii", 50_000, 50_000),
        "claims.ppm": b"P6 90000 90000 255\n" + bytes(100),
        "note.png": made.encode(image, pnginfo=made.note("x" * 200_000_000)),
    }
    write(tmp_path / "in", bombs)
    script = (
        "import resource, sys; from pathlib import Path; from tests.data.flow import PARAMS; "
        "from lapcvae.config import load; from lapcvae.data.decode import *\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "config, before = load(DecodeConfig, 'decode', PARAMS), used()\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: decode(path.read_bytes(), config); print(path.name, 'read')\n"
        "    except Unreadable as refused: print(path.name, refused.reason)\n"
        "print(used() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "in"],
        cwd=PARAMS.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    *outcomes, kilobytes = done.stdout.splitlines()
    assert outcomes == [
        f"{name} {'undecodable' if name == 'note.png' else 'too_many_pixels'}" for name in sorted(bombs)
    ]
    assert int(kilobytes) < 150_000  # a picture of max_pixels alone is that much


def _claiming(data: bytes, place: int, form: str, *values: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, place, *values)
    return bytes(changed)


def _gif_claiming(width: int, height: int) -> bytes:
    gif = made.encode(Image.new("P", (10, 10)), "GIF")
    claimed = _claiming(gif, 6, "<HH", width, height)
    place = claimed.index(b",", 13)  # the image's own frame
    return _claiming(claimed, place + 5, "<HH", width, height)
