"""What is kept comes back; a damaged cache is begun anew, a full disk is told."""

from __future__ import annotations

from pathlib import Path

from lapcvae.io.cache import ContentCache, key_of


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    items = {key_of("a", str(i)): bytes([i % 256]) * i for i in range(1500)}
    with ContentCache(tmp_path / "x" / "c.sqlite") as cache:
        cache.put(items.items())
    with ContentCache(tmp_path / "x" / "c.sqlite") as cache:
        assert cache.get([*items, key_of("none")]) == items


def test_parts_of_a_key_have_borders() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")


def test_a_file_that_is_no_cache_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_bytes(b"not a database " * 1000)
    with ContentCache(path) as cache:
        cache.put([(b"k", b"v")])
        assert cache.get([b"k"]) == {b"k": b"v"}
