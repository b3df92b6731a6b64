"""Names stay apart, stay on one line, and come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapcvae.data.names import is_system, parent, printable


def unescaped(text: str) -> str:
    """The name that `printable` turned into `text`."""
    out, i = [], 0
    back = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
    width = {"x": 2, "u": 4, "U": 8}
    while i < len(text):
        if text[i] != "\\":
            out.append(text[i])
            i += 1
            continue
        kind = text[i + 1]
        if kind in back:
            out.append(back[kind])
            i += 2
            continue
        code = int(text[i + 2 : i + 2 + width[kind]], 16)
        # \xNN stands for a byte that was no text; Python holds such bytes as U+DC80..U+DCFF.
        out.append(chr(0xDC00 + code if kind == "x" and code >= 0x80 else code))
        i += 2 + width[kind]
    return "".join(out)


@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_any_name_comes_back(name: str) -> None:
    # Bytes that are no text come from the file system as U+DC80..U+DCFF; other lone surrogates cannot be stored.
    clean = name.encode("utf-8", "ignore").decode() + "\udc80\udcff"
    shown = printable(clean)
    assert unescaped(shown) == clean
    assert shown.isprintable()


@given(st.text(max_size=10), st.text(max_size=10))
def test_different_names_stay_different(one: str, other: str) -> None:
    assert (printable(one) == printable(other)) == (one == other)


def test_normal_forms_are_kept_apart() -> None:
    assert printable("caf\u00e9.jpg") != printable("cafe\u0301.jpg")


@pytest.mark.parametrize(
    "name", [".hidden.jpg", "a/.git/b.jpg", "Thumbs.db", "x/__MACOSX/._a.jpg", ".DS_Store", "desktop.ini"]
)
def test_system_files_are_known(name: str) -> None:
    assert is_system(name)


@pytest.mark.parametrize("name", ["a.jpg", "../a.jpg", "./a.jpg", "-rf.jpg", "a b/'\".jpg", "thumbs.db.jpg"])
def test_other_names_are_no_system_files(name: str) -> None:
    assert not is_system(name)


def test_the_person_is_the_folder() -> None:
    assert parent("lfw/Ann_B/Ann_B_0001.jpg") == "Ann_B"
    assert parent("photograph.jpg") == ""
