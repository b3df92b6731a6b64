"""A batch is taken in whole or set aside whole, every file accounted for, wherever a run is stopped."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lapcvae.config import load
from lapcvae.data import inbox, taken
from lapcvae.data.collect import collect
from lapcvae.data.inbox import Batch, IntakeConfig
from lapcvae.data.photographs import read_index
from lapcvae.data.sources import SourceConfig
from lapcvae.errors import SourceError, StorageError
from lapcvae.io.atomic import read_json
from tests.data.flow import source_of

ROOT = Path(__file__).parents[2]
CONFIG = IntakeConfig("data/inbox", quiet_s=0, max_reject_share=0.3, min_distinct_share=0.5)
LIMIT = 1 << 26


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    text = (tmp_path / "params.yaml").read_text().replace("workers: 0", "workers: 1")
    (tmp_path / "params.yaml").write_text(text)
    return tmp_path


def put(files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = Path("data/inbox", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def look() -> Batch:
    batch = inbox.collect_batch(CONFIG)
    assert batch is not None
    return inbox.examine(batch, CONFIG, load(SourceConfig, "source"), Path("params.yaml"), Path("manifest.csv"))


def some(faces: dict[str, bytes], first: int, last: int) -> dict[str, bytes]:
    return {name.partition("/")[2]: data for name, data in list(faces.items())[first:last]}


def test_nothing_in_the_inbox_is_no_batch(project: Path) -> None:
    assert inbox.collect_batch(CONFIG) is None


def test_an_inbox_that_is_still_being_filled_is_left_alone(project: Path, faces: dict[str, bytes]) -> None:
    put(some(faces, 0, 2))
    busy = IntakeConfig("data/inbox", 3600, 0.3, 0.5)
    assert inbox.collect_batch(busy) is None
    assert len(list(Path("data/inbox").rglob("*.jpg"))) == 2


def test_a_good_batch_is_taken_in_and_every_file_is_accounted_for(project: Path, faces: dict[str, bytes]) -> None:
    good = some(faces, 0, 6)
    put(good | {"Somebody/broken.jpg": b"not an image", "Thumbs.db": b"x"})
    Path("data/inbox/link.jpg").symlink_to("/etc/hostname")
    batch = look()
    assert batch.reason == ""
    assert batch.new == 6
    tar = inbox.take_in(batch, LIMIT)
    assert inbox.take_in(batch, LIMIT) == tar
    inbox.finish(batch, LIMIT, {})
    record = read_json("data/batches/0001.json")
    assert record["status"] == "taken"
    assert record["files"].keys() == {*good, "Somebody/broken.jpg", "Thumbs.db", "link.jpg"}
    assert record["files"]["Somebody/broken.jpg"] == "not_an_image"
    assert record["files"]["link.jpg"] == "not_a_file"
    assert Path("data/set_aside/0001-left-out/link.jpg").is_symlink()
    assert not list(Path("data/inbox").iterdir())
    assert not list(Path("data/intake").iterdir())
    assert inbox.taken_count() == 6
    assert inbox.collect_batch(CONFIG) is None


def test_taken_batches_follow_the_source_and_keep_who_is_who(
    project: Path, faces: dict[str, bytes], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    for name, data in some(faces, 0, 4).items():
        (source / name).parent.mkdir(parents=True)
        (source / name).write_bytes(data)
    put(some(faces, 4, 7))
    inbox.take_in(look(), LIMIT)
    collect(source_of(source), tmp_path / "raw", taken=taken.FOLDER)
    entries = list(read_index(tmp_path / "raw"))
    assert [entry.identity for entry in entries[:4]] == sorted(name.split("/")[0] for name in some(faces, 0, 4))
    assert {entry.identity for entry in entries[4:]} == {name.split("/")[0] for name in some(faces, 4, 7)}
    assert all(entry.name.startswith("0001/") for entry in entries[4:])


def test_a_damaged_batch_in_the_data_set_is_found_before_it_is_used(
    project: Path, faces: dict[str, bytes], tmp_path: Path
) -> None:
    put(some(faces, 4, 7))
    tar = inbox.take_in(look(), LIMIT)
    content = bytearray(tar.read_bytes())
    content[5000] ^= 1
    tar.write_bytes(content)
    (tmp_path / "source").mkdir()
    with pytest.raises(SourceError, match="damaged"):
        collect(source_of(tmp_path / "source"), tmp_path / "raw", taken=taken.FOLDER)
    assert not (tmp_path / "raw").exists()


def reencoded(data: bytes, quality: int) -> bytes:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).save(stream, "PNG", compress_level=quality)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("poison", "why"),
    [
        (lambda faces: {f"{i}.jpg": b"<html>404</html>" * (i + 1) for i in range(9)}, "no photograph|cannot be used"),
        (lambda faces: {f"p{i}/a.png": reencoded(faces[0], i) for i in range(8)}, "only 1 different"),
        (lambda faces: {"a/.hidden": b"x"}, "no photograph"),
        (lambda faces: {f"{i}.jpg": (data if i % 2 else data[:900]) for i, data in enumerate(faces)}, "cannot be used"),
    ],
    ids=["all rejects", "all one image", "nothing", "half of it cut short"],
)
def test_a_poisoned_batch_is_set_aside_whole_with_its_reason(
    project: Path, faces: dict[str, bytes], poison: Callable[[list[bytes]], dict[str, bytes]], why: str
) -> None:
    import re

    files = poison(list(faces.values())[:8])
    put(files)
    batch = look()
    assert re.search(why, batch.reason)
    place = inbox.set_aside(batch, batch.reason, {})
    kept = {
        p.relative_to(place / "photographs").as_posix(): p for p in (place / "photographs").rglob("*") if p.is_file()
    }
    assert {name: path.read_bytes() for name, path in kept.items()} == files
    assert read_json(place / "reason.json")["reason"] == batch.reason
    assert read_json("data/batches/0001.json")["status"] == "set aside"
    assert not taken.batches()
    assert inbox.taken_count() == 0


def test_photographs_that_are_there_already_are_not_taken_twice(project: Path, faces: dict[str, bytes]) -> None:
    put(some(faces, 0, 5))
    batch = look()
    shutil.copy(batch.examined / "aligned/manifest.csv", "manifest.csv")
    inbox.take_in(batch, LIMIT)
    inbox.finish(batch, LIMIT, {})
    put(some(faces, 0, 5))
    again = look()
    assert again.number == "0002"
    assert again.reason == "every photograph in it is in the data set already"


# Killed at each call that changes the file system, whole files and folders at a time.
CHILD = """
import os, shutil, signal, sys
from pathlib import Path
from lapcvae.config import load
from lapcvae.data import inbox
from lapcvae.data.sources import SourceConfig
calls, stop_after = 0, 0
def counted(function):
    def call(*arguments, **names):
        global calls
        calls += 1
        if calls > stop_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **names)
    return call
Path.rename, Path.replace, shutil.rmtree = counted(Path.rename), counted(Path.replace), counted(shutil.rmtree)
config = inbox.IntakeConfig("data/inbox", 0, 0.3, 0.5)
def run():
    batch = inbox.collect_batch(config)
    if batch is None:
        return
    batch = inbox.examine(batch, config, load(SourceConfig, "source"), Path("params.yaml"), Path("manifest.csv"))
    if batch.reason:
        inbox.set_aside(batch, batch.reason, {})
        return
    inbox.take_in(batch, 1 << 26)
    inbox.finish(batch, 1 << 26, {})
for stop_after in range(60):
    here = Path(f"try{stop_after}")
    shutil.copytree("start", here, copy_function=os.link)
    os.chdir(here)
    if not (child := os.fork()):
        calls = 0
        run()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    os.chdir("..")
    print(os.waitstatus_to_exitcode(status), flush=True)
    if not status:
        break
"""


@pytest.mark.parametrize("bad", [False, True], ids=["good", "bad"])
def test_an_intake_killed_anywhere_is_finished_by_the_next(
    project: Path, faces: dict[str, bytes], bad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = some(faces, 0, 3) if not bad else {f"p/{i}.jpg": b"no" * (i + 1) for i in range(3)}
    put(files)
    Path("start").mkdir()
    shutil.move("data", "start/data")
    shutil.copy("params.yaml", "start/params.yaml")
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    codes = [int(code) for code in done.stdout.split()]
    assert codes == [-signal.SIGKILL] * (len(codes) - 1) + [0]
    assert len(codes) > 6
    ends: list[Any] = []
    for stop_after in range(len(codes)):
        monkeypatch.chdir(project / f"try{stop_after}")
        assert len(taken.batches()) <= 1  # a batch is in the data set whole or not at all
        for _ in range(2):  # the next run; the one after it finds nothing
            batch = inbox.collect_batch(CONFIG)
            if batch is None:
                continue
            batch = inbox.examine(
                batch, CONFIG, load(SourceConfig, "source"), Path("params.yaml"), Path("manifest.csv")
            )
            if batch.reason:
                inbox.set_aside(batch, batch.reason, {})
            else:
                inbox.take_in(batch, LIMIT)
                inbox.finish(batch, LIMIT, {})
        names = sorted(p.relative_to("data").as_posix() for p in Path("data").rglob("*") if p.is_file())
        names = [name for name in names if "examined" not in name]
        ends.append((names, read_json("data/batches/0001.json")))
    for end in ends:
        assert end == ends[-1]
    assert ends[-1][1]["status"] == ("set aside" if bad else "taken")


def test_a_full_disk_leaves_the_batch_for_the_next_run(project: Path, faces: dict[str, bytes]) -> None:
    import resource

    put(some(faces, 0, 4))
    batch = look()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(StorageError):
            inbox.take_in(batch, LIMIT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert not taken.batches()
    batch = look()
    assert inbox.take_in(batch, LIMIT).exists()
