"""Downloads from a real server that does what servers do; nothing unverified is ever given back."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lapcvae.errors import SourceError
from lapcvae.io.fetch import MIRRORS_VARIABLE, FetchConfig, RemoteFile, check, fetch

DATA = os.urandom(700_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@dataclass
class Behaviour:
    """What the server does, and what it was asked."""

    data: bytes = DATA
    ranges: bool = True
    drop_after: int = 0  # bytes of each answer, then the connection is cut
    statuses: list[int] = field(default_factory=list)  # given first, one an answer
    html: bool = False
    length: bool = True
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[tuple[str, Behaviour]]:
    behaviour = Behaviour()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            behaviour.asked.append(asked)
            if behaviour.statuses:
                self.send_error(behaviour.statuses.pop(0))
                return
            start = int(asked[6:-1]) if asked and behaviour.ranges else 0
            if start >= len(behaviour.data):
                self.send_error(416)
                return
            body = b"<!DOCTYPE html><p>Too many downloads" if behaviour.html else behaviour.data[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Type", "text/html" if behaviour.html else "application/octet-stream")
            if behaviour.length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: behaviour.drop_after] if behaviour.drop_after else body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}/files/faces.tgz", behaviour
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture(autouse=True)
def no_mirrors_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MIRRORS_VARIABLE, raising=False)


def config(tmp_path: Path) -> FetchConfig:
    return FetchConfig(tmp_path / "downloads", attempts=4, pause_s=0.01, timeout_s=5)


def of(*mirrors: str, size: int = len(DATA)) -> RemoteFile:
    return RemoteFile("faces.tgz", DIGEST, mirrors, size, "http://example.org/faces")


def test_a_file_is_fetched_once(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    address, behaviour = server
    for _ in range(2):
        assert fetch(of(address), config(tmp_path)).read_bytes() == DATA
    assert behaviour.asked == [""]
    assert [p.name for p in (tmp_path / "downloads").iterdir()] == ["faces.tgz"]


@pytest.mark.parametrize("size", [len(DATA), 0])
def test_a_cut_download_goes_on_where_it_was(server: tuple[str, Behaviour], tmp_path: Path, size: int) -> None:
    address, behaviour = server
    behaviour.drop_after = 250_000
    assert fetch(of(address, size=size), config(tmp_path)).read_bytes() == DATA
    assert behaviour.asked == ["", "bytes=250000-", "bytes=500000-"]


def test_a_later_run_goes_on_too(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    address, behaviour = server
    behaviour.drop_after = 100_000
    with pytest.raises(SourceError, match="ended after 400,000 of 700,000 bytes, 4 times"):
        fetch(of(address), config(tmp_path))
    behaviour.drop_after = 0
    assert fetch(of(address), config(tmp_path)).read_bytes() == DATA
    assert behaviour.asked[-1] == "bytes=400000-"


def test_a_server_without_ranges_begins_again(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    address, behaviour = server
    behaviour.drop_after, behaviour.ranges = 250_000, False
    with pytest.raises(SourceError, match="ended after"):
        fetch(of(address), config(tmp_path))
    behaviour.drop_after = 0
    assert fetch(of(address), config(tmp_path)).read_bytes() == DATA


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    address, behaviour = server
    behaviour.statuses = [503, 429, 500]
    assert fetch(of(address), config(tmp_path)).read_bytes() == DATA
    assert len(behaviour.asked) == 4
    behaviour.statuses = [404] * 9
    with pytest.raises(SourceError, match="HTTP status 404"):
        fetch(of(address), config(tmp_path / "other"))
    assert len(behaviour.asked) == 5


def test_the_next_mirror_is_tried(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    address, _ = server
    dead = "http://127.0.0.1:9/faces.tgz"
    assert fetch(of(str(tmp_path / "none"), dead, address), config(tmp_path)).read_bytes() == DATA


def test_a_page_in_place_of_the_file_is_noticed(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    address, behaviour = server
    behaviour.html = True
    with pytest.raises(SourceError, match="HTML page in place of the file") as told:
        fetch(of(address, size=0), config(tmp_path))
    for words in ("By hand", "http://example.org/faces", DIGEST, MIRRORS_VARIABLE, "downloads/faces.tgz"):
        assert words in str(told.value)
    assert told.value.exit_code == 2
    assert len(behaviour.asked) == 1
    assert list((tmp_path / "downloads").iterdir()) == []


@pytest.mark.parametrize(
    ("data", "size", "says"),
    [
        (DATA[:-1] + b"?", len(DATA), "SHA-256 is"),
        (DATA + b"more", len(DATA), "has a file of 700,004 bytes"),
        (DATA[:-9], len(DATA), "has a file of 699,991 bytes"),
        (DATA + b"more", 0, "SHA-256 is"),
    ],
)
def test_another_file_is_never_taken(
    server: tuple[str, Behaviour], tmp_path: Path, data: bytes, size: int, says: str
) -> None:
    address, behaviour = server
    behaviour.data = data
    with pytest.raises(SourceError, match=says):
        fetch(of(address, size=size), config(tmp_path))
    assert list((tmp_path / "downloads").iterdir()) == []


def test_an_endless_answer_is_cut(server: tuple[str, Behaviour], tmp_path: Path) -> None:
    address, behaviour = server
    behaviour.data, behaviour.length = DATA * 4, False
    with pytest.raises(SourceError, match="sends more than 700,000 bytes"):
        fetch(of(address), config(tmp_path))


def test_a_folder_of_copies_comes_first_whatever_the_copy_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "copies" / "deep"
    folder.mkdir(parents=True)
    (folder / "faces.tgz").write_bytes(os.urandom(len(DATA)))  # the right name and size, but not the file
    (folder / "renamed.bin").write_bytes(DATA)
    monkeypatch.setenv(MIRRORS_VARIABLE, str(tmp_path / "copies"))
    assert fetch(of("http://127.0.0.1:9/faces.tgz"), config(tmp_path)) == folder / "renamed.bin"


@pytest.mark.parametrize(
    ("content", "says"), [(None, "no such file"), (DATA[:9], "truncated"), (DATA[::-1], "SHA-256")]
)
def test_a_local_file_is_checked(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "faces.tgz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=says):
        check(path, DIGEST, len(DATA))
