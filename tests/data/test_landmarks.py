"""A detector that fails: on a photograph, which is told of it; on all of them, which stops the stage with its words."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lapcvae.data.sight import read_sights
from lapcvae.errors import ConfigError
from tests.data.flow import look_and_align

Pack = Callable[[dict[str, bytes]], Path]
ABSENT = "module 'numpy' has no attribute 'fix'"  # NumPy is going to drop what the detector's package uses


def test_a_detector_that_fails_on_all_says_why_and_nothing_of_it_is_kept(
    faces: dict[str, bytes], pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = pack({"note.jpg": b"not a photograph", **dict(list(faces.items())[:10])})
    with monkeypatch.context() as patch:
        patch.delattr(np, "fix")
        with pytest.raises(
            ConfigError, match=rf"on every photograph it was shown, .*\.jpg .*: AttributeError: {ABSENT}"
        ):
            look_and_align(raw, tmp_path)
    assert not (tmp_path / "landmarks.csv").exists()
    assert look_and_align(raw, tmp_path) == {"accepted": 10, "not_an_image": 1}


def test_what_a_detector_failed_on_is_looked_at_again(
    faces: dict[str, bytes], pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So few that they may be to blame themselves."""
    photographs = list(faces.values())[:3]
    raw = pack({f"{i}.jpg": data for i, data in enumerate([*photographs, photographs[0]])})
    monkeypatch.setattr("lapcvae.data.landmarks._BATCH", 2)
    with monkeypatch.context() as patch:
        patch.delattr(np, "fix")
        look_and_align(raw, tmp_path)
    assert [sight.reason for sight in read_sights(tmp_path / "landmarks.csv")] == ["detector_failed"] * 4
    assert look_and_align(raw, tmp_path) == {"accepted": 3, "duplicate": 1}
