"""Names from anywhere, made safe to store and print: they are data, and never become paths of ours."""

from __future__ import annotations

import functools
from pathlib import PurePosixPath

_SYSTEM = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r", "__macosx", "$recycle.bin", "lost+found"})
_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(name: str) -> str:
    """`name` on one line: backslash, control, format and undecodable characters become escapes, all else stays.

    The escape is one to one: different names stay different.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(_escape(c) for c in name)


def _escape(c: str) -> str:
    if c in _SHORT:
        return _SHORT[c]
    code = ord(c)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if c.isprintable():
        return c
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def is_system(name: str) -> bool:
    """Whether any part of a source's name is hidden (leading dot) or one that operating systems leave behind."""
    folder, _, last = name.rpartition("/")
    return _is_systems(last) or (folder != "" and _in_systems(folder))


def _is_systems(part: str) -> bool:
    return part not in ("", ".", "..") and (part.startswith(".") or part.lower() in _SYSTEM)


@functools.lru_cache(maxsize=1024)
def _in_systems(folder: str) -> bool:
    return any(map(_is_systems, folder.split("/")))


def parent(name: str) -> str:
    """The name of the folder that holds the member `name`, escaped; empty at the top."""
    folder, _, last = name.rpartition("/")
    return _called(folder) if last not in ("", ".") else printable(PurePosixPath(name).parent.name)


@functools.lru_cache(maxsize=1024)
def _called(folder: str) -> str:
    return printable(PurePosixPath(folder).name)
