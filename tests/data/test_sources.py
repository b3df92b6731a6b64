"""Every kind of source gives the same photographs by the same verified path."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import yaml
from PIL import Image

from lapcvae.config import load, parse
from lapcvae.data.collect import collect
from lapcvae.data.manifest import read_manifest
from lapcvae.data.photographs import read_index
from lapcvae.data.sources import MIRRORS, SourceConfig, folder_members
from lapcvae.errors import ConfigError, SourceError
from lapcvae.io.atomic import sha256_file
from lapcvae.io.fetch import MIRRORS_VARIABLE, RemoteFile
from tests.data.conftest import SAMPLE
from tests.data.flow import PARAMS, look_and_align, source_of

DEFAULT = load(SourceConfig, "source", PARAMS)


def test_the_sample_is_what_its_readme_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PARAMS.parent)
    assert collect(DEFAULT, tmp_path / "raw") == (1000, 0)
    entries = list(read_index(tmp_path / "raw"))
    assert len({e.identity for e in entries}) == len({e.sha256 for e in entries}) == 1000
    assert SAMPLE.stat().st_size <= 9_000_000
    text = (SAMPLE.parent / "README.md").read_text()
    assert sha256_file(SAMPLE) in text
    assert f"{SAMPLE.stat().st_size:,}" in text


def test_known_files_are_listed_with_digest_and_mirrors() -> None:
    for kind in ("sample", "lfw"):
        (file,) = load(tuple[RemoteFile, ...], kind, MIRRORS)
        assert len(file.sha256) == 64
        assert file.bytes > 0
        assert file.mirrors


def test_folder_zip_and_tar_give_the_same_photographs(faces: dict[str, bytes], tmp_path: Path) -> None:
    few = dict(list(faces.items())[:6])
    for name, data in few.items():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, tarfile.open(tmp_path / "a.tar.xz", "w:xz") as tar:
        for name, data in few.items():
            archive.writestr(name, data)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    found = []
    for i, source in enumerate(("folder", "a.zip", "a.tar.xz")):
        collect(source_of(tmp_path / source), tmp_path / f"raw{i}")
        found.append([(e.name, e.identity, e.sha256) for e in read_index(tmp_path / f"raw{i}")])
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 6


def test_a_file_that_comes_in_pieces_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    content = bytes(range(256)) * 40
    (tmp_path / "source" / "a.jpg").write_bytes(content)
    whole = os.read
    monkeypatch.setattr(os, "read", lambda handle, wanted: whole(handle, min(wanted, 1000)))  # as some file systems do
    (member,) = folder_members(tmp_path / "source", 10)
    assert member.read(100_000) == content
    assert member.read(5000) == content[:5000]
    (tmp_path / "source" / "a.jpg").write_bytes(content * 2)  # has grown since it was listed
    assert member.read(100_000) == content * 2


def test_an_archive_at_an_address_is_fetched_verified_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.delenv(MIRRORS_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)  # downloads go to .cache there
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SAMPLE.parent)) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_port}/{SAMPLE.name}?download=1"
        at = replace(DEFAULT, kind="url", path="", url=address, sha256=sha256_file(SAMPLE))
        found = collect(at, tmp_path / "raw")
        with pytest.raises(SourceError, match=r"no mirror gave it[\s\S]*SHA-256 is[\s\S]*By hand: bring the file"):
            collect(replace(at, sha256="0" * 64), tmp_path / "other")
        server.shutdown()
    assert found == (1000, 0)
    assert collect(at, tmp_path / "raw") == (1000, 0)  # from the earlier download: nobody serves any more


def test_lfw_is_read_from_a_folder_of_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "copies").mkdir()
    shutil.copy(SAMPLE, tmp_path / "copies" / "renamed")
    file = {"name": "lfw-funneled.tgz", "sha256": sha256_file(SAMPLE), "bytes": SAMPLE.stat().st_size}
    listed = tmp_path / "mirrors.yaml"
    listed.write_text(yaml.safe_dump({"lfw": [{**file, "mirrors": ["http://127.0.0.1:9/lfw"]}]}))
    monkeypatch.setattr("lapcvae.data.sources.MIRRORS", listed)
    monkeypatch.setenv(MIRRORS_VARIABLE, str(tmp_path / "copies"))
    assert collect(replace(DEFAULT, kind="lfw"), tmp_path / "raw") == (1000, 0)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda p: None, "no such file"),
        (lambda p: p.write_bytes(SAMPLE.read_bytes()[:-9]), "SHA-256"),
        (lambda p: p.write_bytes(b"<html>"), "SHA-256"),
    ],
)
def test_an_archive_that_is_not_the_one_asked_for_is_not_opened(made, says: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.tgz"
    made(path)
    wanted = replace(DEFAULT, kind="archive", path=str(path), sha256=sha256_file(SAMPLE))
    with pytest.raises(SourceError, match=says):
        collect(wanted, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
    assert [p.name for p in tmp_path.iterdir()] in ([], ["a.tgz"])


def test_an_archive_is_read_once_where_nothing_is_kept_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(__file__, "a.jpg")
    hashed: list[str] = []
    plain = hashlib.file_digest

    def digest(stream: BinaryIO, *rest: Any) -> Any:
        hashed.append(stream.name)
        return plain(stream, *rest)

    monkeypatch.setattr(hashlib, "file_digest", digest)
    collect(source_of(tmp_path / "a.tar"), tmp_path / "raw")
    assert not hashed
    collect(source_of(tmp_path / "a.tar"), tmp_path / "raw", cache=tmp_path / "cache")
    assert hashed == [str(tmp_path / "a.tar")]


def test_a_truncated_archive_without_a_digest_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(SAMPLE.read_bytes()[:4_000_000])
    with pytest.raises(SourceError, match="truncated"):
        collect(replace(DEFAULT, kind="archive", path=str(path)), tmp_path / "raw")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tgz"]


def test_a_source_without_photographs_is_told(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    with pytest.raises(SourceError, match=r"no photograph \(1 refused\)"):
        collect(source_of(tmp_path / "in"), tmp_path / "raw")
    with pytest.raises(SourceError, match="no such folder"):
        collect(replace(DEFAULT, kind="folder", path=str(tmp_path / "none")), tmp_path / "raw")


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "ftp"},
        {"kind": "url", "url": "http://example.org/a.zip"},
        {"kind": "folder", "path": ""},
        {"max_ratio": 0},
    ],
)
def test_bad_settings_are_refused(bad: dict[str, object]) -> None:
    tree = {name: getattr(DEFAULT, name) for name in SourceConfig.__dataclass_fields__}
    with pytest.raises(ConfigError):
        parse(SourceConfig, {**tree, **bad}, "source")


def celeba(folder: Path, faces: dict[str, bytes]) -> None:
    """A small set in the form of CelebA's files: 178 x 218 images of which the corners tell where they were cut."""
    folder.mkdir()
    landmarks = [str(len(faces)), "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x ..."]
    partition, identity, attributes = [], [], [str(len(faces)), "5_o_Clock_Shadow Young"]
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for i, data in enumerate(faces.values(), 1):
            image = Image.open(io.BytesIO(data)).convert("RGB").crop((36, 16, 214, 234))
            stream = io.BytesIO()
            image.save(stream, "PNG")
            archive.writestr(f"img_align_celeba/{i:06d}.jpg", stream.getvalue())
            landmarks.append(f"{i:06d}.jpg  69  109  106  113   77  142   73  152  108  154")
            partition.append(f"{i:06d}.jpg {i % 3}")
            identity.append(f"{i:06d}.jpg {2000 + i % 2}")
            attributes.append(f"{i:06d}.jpg -1  1")
    (folder / "list_landmarks_align_celeba.txt").write_text("\n".join(landmarks))
    (folder / "list_eval_partition.txt").write_text("\n".join(partition))
    (folder / "identity_CelebA.txt").write_text("\n".join(identity))
    (folder / "list_attr_celeba.txt").write_text("\n".join(attributes))


def test_celeba_comes_with_its_own_landmarks_splits_and_crop(faces: dict[str, bytes], tmp_path: Path) -> None:
    few = dict(list(faces.items())[:6])
    celeba(tmp_path / "celeba", few)
    config = replace(DEFAULT, kind="celeba", path=str(tmp_path / "celeba"), verify=False)
    collect(config, tmp_path / "raw")
    look_and_align(tmp_path / "raw", tmp_path, size=148)
    rows = list(read_manifest(tmp_path / "aligned" / "manifest.csv"))
    assert [r.split for r in rows] == ["val", "test", "train", "val", "test", "train"]
    assert [r.identity for r in rows] == ["2001", "2000"] * 3
    assert {r.status for r in rows} == {"accepted"}
    images = np.load(tmp_path / "aligned" / "images.npy")
    for image, data in zip(images, few.values(), strict=True):
        whole = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").crop((36, 16, 214, 234)))
        assert np.array_equal(image, whole[40:188, 15:163])


def test_other_files_than_the_published_are_not_taken_for_celeba(faces: dict[str, bytes], tmp_path: Path) -> None:
    celeba(tmp_path / "celeba", dict(list(faces.items())[:2]))
    config = replace(DEFAULT, kind="celeba", path=str(tmp_path / "celeba"))
    with pytest.raises(SourceError, match="MD5"):
        collect(config, tmp_path / "raw")
    (tmp_path / "celeba" / "list_eval_partition.txt").unlink()
    (tmp_path / "celeba" / "img_align_celeba.zip").unlink()
    with pytest.raises(SourceError, match=r"img_align_celeba\.zip: not found\. Bring"):
        collect(config, tmp_path / "raw")


def test_celeba_is_found_by_digest_in_a_folder_of_copies(
    faces: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, copies = tmp_path / "made", tmp_path / "copies"
    celeba(made, dict(list(faces.items())[:3]))
    published = {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in made.iterdir()}
    listed = tmp_path / "mirrors.yaml"
    listed.write_text(yaml.safe_dump({"celeba": published}))
    monkeypatch.setattr("lapcvae.data.sources.MIRRORS", listed)
    copies.mkdir()
    for i, name in enumerate(published):
        (made / name).rename(copies / f"{i}.bin")
    config = replace(DEFAULT, kind="celeba", path=str(made))
    with pytest.raises(SourceError, match=r"not found\. Bring"):
        collect(config, tmp_path / "raw")
    monkeypatch.setenv(MIRRORS_VARIABLE, str(copies))
    assert collect(config, tmp_path / "raw") == (3, 0)
    assert [e.identity for e in read_index(tmp_path / "raw")] == ["2001", "2000", "2001"]
    assert all(e.points and e.split for e in read_index(tmp_path / "raw"))


def test_a_broken_line_of_celeba_is_told(faces: dict[str, bytes], tmp_path: Path) -> None:
    celeba(tmp_path / "celeba", dict(list(faces.items())[:2]))
    path = tmp_path / "celeba" / "list_landmarks_align_celeba.txt"
    path.write_text(path.read_text().replace("152", "x"))
    with pytest.raises(SourceError, match="line 3 is not a name and 10 numbers"):
        collect(replace(DEFAULT, kind="celeba", path=str(tmp_path / "celeba"), verify=False), tmp_path / "raw")
