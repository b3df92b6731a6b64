"""Archives of every kind, whole, damaged and hostile."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from lapcvae.errors import SourceError
from lapcvae.io.archive import ArchiveLimits, DamagedMember, members

LIMITS = ArchiveLimits(max_members=50_000, max_total_bytes=1 << 40, max_ratio=200.0)
FILES = {f"people/p{i}/{i}.jpg": os.urandom(40_000 + i) for i in range(20)}
KINDS = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst")


def make_tar(path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for entry, data in entries:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def make(kind: str, folder: Path) -> Path:
    path = folder / f"archive.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in FILES.items():
                archive.writestr(name, data)
        return path
    mode = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz", "tar.zst": "w"}[kind]
    make_tar(path, [(tarfile.TarInfo(name), data) for name, data in FILES.items()], mode)
    if kind == "tar.zst":
        path.write_bytes(zstandard.compress(path.read_bytes()))
    return path


def read_all(path: Path, limits: ArchiveLimits = LIMITS) -> dict[str, bytes]:
    return {m.name: m.read(1 << 20) for m in members(path, limits) if m.kind == "file"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_bytes(kind: str, tmp_path: Path) -> None:
    assert read_all(make(kind, tmp_path)) == FILES


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_told_by_content_not_by_name(kind: str, tmp_path: Path) -> None:
    path = make(kind, tmp_path).rename(tmp_path / "photographs.jpg")
    assert read_all(path) == FILES


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.7, 0.97])
def test_a_truncated_archive_is_an_error(kind: str, share: float, tmp_path: Path) -> None:
    path = make(kind, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SourceError, match=r"truncated or damaged"):
        read_all(path)


def test_a_tar_cut_exactly_between_members_is_an_error(tmp_path: Path) -> None:
    path = make("tar", tmp_path)
    path.write_bytes(path.read_bytes()[: 5 * (512 + 40_448)])
    with pytest.raises(SourceError, match="truncated"):
        read_all(path)


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz"])
def test_a_wrong_checksum_at_the_end_is_an_error(kind: str, tmp_path: Path) -> None:
    path = make(kind, tmp_path)
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(SourceError):
        read_all(path)


@pytest.mark.parametrize("data", [b"", b"<html>not here</html>", os.urandom(3000)])
def test_what_is_no_archive_is_an_error(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "archive.tar"
    path.write_bytes(data)
    with pytest.raises(SourceError, match="not an archive"):
        read_all(path)


def test_a_missing_archive_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        read_all(tmp_path / "none.zip")


def test_a_fifo_or_folder_in_place_of_the_archive_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.zip")
    for path in (tmp_path / "fifo.zip", tmp_path, Path("/dev/zero")):
        with pytest.raises(SourceError, match="not a file"):
            read_all(path)


def test_links_devices_and_fifos_are_named_and_give_nothing(tmp_path: Path) -> None:
    entries = []
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE):
        entry = tarfile.TarInfo(f"kind-{kind.decode()}.jpg")
        entry.type, entry.linkname = kind, "/etc/passwd"
        entries.append((entry, b""))
    path = make_tar(tmp_path / "a.tar", [*entries, (tarfile.TarInfo("good.jpg"), b"good")])
    kinds = [(m.kind, m.read(9) if m.kind == "file" else b"") for m in members(path, LIMITS)]
    assert kinds == [("other", b"")] * 5 + [("file", b"good")]


def test_a_zip_symlink_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert [m.kind for m in members(path, LIMITS)] == ["other"]


@pytest.mark.parametrize("name", ["../up.jpg", "/tmp/absolute.jpg", "a/../../b.jpg", "C:\\x.jpg", "..\\y.jpg"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_members_outside_are_only_names(name: str, kind: str, tmp_path: Path) -> None:
    inner = tmp_path / "deep" / "er"
    inner.mkdir(parents=True)
    path = inner / "a"
    if kind == "tar":
        make_tar(path, [(tarfile.TarInfo(name), b"data")])
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"data")
    before = sorted(tmp_path.rglob("*"))
    assert list(read_all(path).values()) == [b"data"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bad_zip_member_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bad.jpg", b"A" * 100)
        archive.writestr("good.jpg", b"B" * 100)
    path.write_bytes(path.read_bytes().replace(b"A" * 100, b"A" * 99 + b"Z"))
    each = members(path, LIMITS)
    with pytest.raises(DamagedMember):
        next(each).read(1000)
    assert next(each).read(1000) == b"B" * 100


def test_an_encrypted_zip_member_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("secret.jpg", b"A" * 100)
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the local header, and below in the central directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert [m.kind for m in members(path, LIMITS)] == ["encrypted"]


def test_twenty_thousand_empty_members_are_read(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a.tar.gz", [(tarfile.TarInfo(f"{i}.jpg"), b"") for i in range(20_000)], "w:gz")
    assert sum(m.kind == "file" and m.size == 0 for m in members(path, LIMITS)) == 20_000


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_too_many_members_stop_it(kind: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="more than 19 members"):
        read_all(make(kind, tmp_path), ArchiveLimits(19, 1 << 40, 200.0))


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_too_many_bytes_stop_it(kind: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="unpacks to over 5,000 bytes"):
        read_all(make(kind, tmp_path), ArchiveLimits(99, 5000, 200.0))


class Zeros(io.RawIOBase):
    """As many zero bytes as asked for, without holding them."""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return bytes(size)


def test_a_bomb_is_stopped_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        entry = tarfile.TarInfo("zeros.jpg")
        entry.size = 400 << 20
        tar.addfile(entry, Zeros())
    with pytest.raises(SourceError, match="bomb"):
        list(members(path, LIMITS))


def test_a_header_that_claims_gigabytes_is_a_bomb(tmp_path: Path) -> None:
    header = tarfile.TarInfo("long name")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 4 << 30
    path = tmp_path / "a.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    with pytest.raises(SourceError, match="bomb"):
        list(members(path, LIMITS))
