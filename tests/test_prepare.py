"""`lapcvae prepare`: any folder or archive in, an account of every file out."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TOP = Path(__file__).parents[1]
SAMPLE = TOP / "data" / "samples" / "lfw-sample.tgz"


def lapcvae(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lapcvae.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of 20 faces and some files that are none."""
    path = tmp_path_factory.mktemp("source") / "photographs.zip"
    with tarfile.open(SAMPLE) as tar, zipfile.ZipFile(path, "w") as made:
        for _ in range(20):
            member = tar.next()
            assert member is not None
            stream = tar.extractfile(member)
            assert stream is not None
            made.writestr(Path(member.name).name, stream.read())
        made.writestr("<script>alert(1)</script>.jpg", "no photograph")
        made.writestr("flat.ppm", b"P6 100 100 255\n" + bytes([9]) * 30000)
        made.writestr(".DS_Store", "x")
    return path


def test_an_archive_is_prepared_and_accounted_for(archive: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "out", tmp_path / "account.json"
    done = lapcvae("prepare", archive, "--out", out, "--json", report, "--identity", "none")
    assert (done.returncode, done.stderr) == (0, "")
    counts = json.loads(report.read_text())
    assert counts == json.loads((out / "account.json").read_text())
    assert counts["photographs"] == 23
    assert counts["rejected"] == {"no_face": 1, "not_an_image": 1, "system_file": 1}
    assert counts["accepted"] == sum(counts["splits"].values()) == 20
    assert np.load(out / "aligned" / "images.npy", mmap_mode="r").shape == (20, 64, 64, 3)
    for line in ("23  photographs", "20  accepted", "1    not_an_image: no known image format"):
        assert line in done.stdout
    page = (out / "account.html").read_text()
    for reason in ("no_face", "not_an_image", "system_file"):
        assert f"<h2>{reason}: 1</h2>" in page
    assert page.count("<figure>") == 3
    assert page.count('src="data:image/jpeg;base64,') == 1  # of the one that can be shown
    assert "<script" not in page
    assert "http" not in page
    again = lapcvae("prepare", archive, "--out", out, "--identity", "none")
    assert again.returncode == 0
    assert (out / "account.html").read_text() == page


def test_nothing_written_in_a_photograph_is_handed_on(tmp_path: Path) -> None:
    secret = b"51.4545 N 2.5879 W, taken by Ann"
    with tarfile.open(SAMPLE) as tar:
        stream = tar.extractfile(tar.next())  # type: ignore[arg-type]
        assert stream is not None
        face = Image.open(io.BytesIO(stream.read()))
    (tmp_path / "in").mkdir()
    comment = {"comment": secret, "exif": _exif(secret), "icc_profile": secret, "xmp": secret}
    face.save(tmp_path / "in" / "a.jpg", "JPEG", **comment)
    face.rotate(180).save(tmp_path / "in" / "rejected.jpg", "JPEG", **comment)
    assert (tmp_path / "in" / "a.jpg").read_bytes().count(secret) == 4
    done = lapcvae("prepare", tmp_path / "in", "--out", tmp_path / "out", "--identity", "none")
    assert (done.returncode, done.stderr) == (0, "")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"images.npy", "manifest.csv", "landmarks.csv", "account.html"}
    for path in files:
        data = path.read_bytes()
        for picture in re.findall(rb"base64,([^\"]+)", data):
            data += base64.b64decode(picture)
        assert secret not in data, path


def _exif(note: bytes) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = note.decode()
    return exif.tobytes()


def test_an_archive_without_a_photograph_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "texts.zip", "w") as made:
        made.writestr("notes/a.txt", "no photograph")
        made.writestr("b.jpg", "none either")
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    done = lapcvae("prepare", tmp_path / "texts.zip", "--out", tmp_path / "texts")
    assert done.returncode == 0, done.stderr
    assert "2    not_an_image" in done.stdout
    assert "0  accepted" in done.stdout
    assert np.load(tmp_path / "texts" / "aligned" / "images.npy").shape == (0, 64, 64, 3)
    done = lapcvae("prepare", tmp_path / "empty.zip", "--out", tmp_path / "empty")
    assert done.returncode == 2
    assert "holds no photograph (0 refused)" in done.stderr


@pytest.mark.parametrize("where", ["same", "inside", "foreign", "missing", "text"])
def test_places_that_cannot_be_are_refused(where: str, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    out.mkdir()
    (source / "a.jpg").write_bytes(b"x")
    if where == "same":
        out = source
    elif where == "inside":
        out = source / "out"
    elif where == "foreign":
        (out / "thesis.txt").write_text("mine")
    elif where == "missing":
        source = tmp_path / "none"
    else:
        source = tmp_path / "a.txt"
        source.write_text("no archive")
    before = sorted(tmp_path.rglob("*"))
    done = lapcvae("prepare", source, "--out", out)
    assert done.returncode == 2
    assert done.stderr.startswith("lapcvae: error: ")
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_unknown_options_are_the_users_mistake() -> None:
    assert lapcvae("prepare", ".", "--where", "x").returncode == 2
    assert lapcvae("--help").returncode == 0
