"""Which face is taken, and that a sure detector is not enough: the five points must fit the template."""

from __future__ import annotations

import tarfile
from dataclasses import replace

import numpy as np
import pytest

from lapcvae.config import load
from lapcvae.data.decode import DecodeConfig
from lapcvae.data.detector import DetectorConfig
from lapcvae.data.judge import AlignConfig, choose, judge
from lapcvae.data.landmarks import look
from lapcvae.data.manifest import Row
from lapcvae.data.sight import Face, Sight
from lapcvae.data.template import POINTS
from tests.data.conftest import SAMPLE
from tests.data.flow import PARAMS

ALIGN = load(AlignConfig, "align", PARAMS)
PROFILE = "Ken_Watanabe"  # of the sample: turned away, one eye behind the nose


def seen(person: str) -> Sight:
    with tarfile.open(SAMPLE) as tar:
        member = next(m for m in tar if person in m.name and m.isfile())
        stream = tar.extractfile(member)
        assert stream is not None
        data = stream.read()
    return look(data, "", load(DecodeConfig, "decode", PARAMS), load(DetectorConfig, "detector", PARAMS))


def outcome(sight: Sight, config: AlignConfig = ALIGN) -> Row:
    row = Row("a.jpg", "test", "", sight.sha256, "accepted")
    judge([row], [sight], config, [False])
    return row


def test_a_face_the_detector_is_sure_of_is_rejected_where_its_points_do_not_fit() -> None:
    sight = seen(PROFILE)
    row = outcome(sight)
    assert row.score > 0.99 > ALIGN.min_score
    assert row.reason == "poor_fit"
    assert row.residual > ALIGN.max_residual
    assert outcome(sight, replace(ALIGN, max_residual=0.5)).reason == ""


def placed(x: float, y: float, scale: float, score: float, turn_deg: float = 0.0) -> Face:
    """A face that fits the template exactly, its middle at x, y."""
    c, s = scale * np.cos(np.radians(turn_deg)), scale * np.sin(np.radians(turn_deg))
    points = (POINTS - POINTS.mean(0)) @ np.array([[c, s], [-s, c]]) + (x, y)
    return Face(score, (x - 30 * scale, y - 30 * scale, 60 * scale, 60 * scale), tuple(points.ravel().tolist()))


def of(*faces: Face) -> Sight:
    return Sight("0" * 64, "", 400, 300, 100.0, "1" * 64, "2" * 64, faces)


def test_the_most_central_of_the_sure_and_large_is_chosen() -> None:
    middle, side = placed(210, 150, 1, 0.98), placed(60, 150, 1, 1.0)
    unsure, small = placed(200, 150, 1, 0.9), placed(200, 150, 0.2, 1.0)
    assert choose(of(side, middle, unsure, small), ALIGN) is middle
    assert choose(of(side, unsure, small), ALIGN) is side
    assert choose(of(unsure, small), ALIGN) is small
    assert choose(of(unsure), ALIGN) is None


@pytest.mark.parametrize(
    ("face", "reason"),
    [
        (placed(200, 150, 1, 0.99), ""),
        (placed(200, 150, 1, 0.99, turn_deg=44), ""),
        (placed(200, 150, 1, 0.99, turn_deg=46), "turned"),
        (placed(200, 150, 1, 0.99, turn_deg=180), "turned"),
        (placed(20, 150, 1, 0.99), "outside_frame"),
        (placed(200, 150, 0.4, 0.99), "small_face"),
        (placed(200, 150, 0.0, 0.99), "small_face"),
    ],
)
def test_what_is_wrong_with_a_face_is_its_reason(face: Face, reason: str) -> None:
    assert outcome(of(face)).reason == reason


def test_a_mirrored_set_of_points_does_not_fit() -> None:
    face = placed(200, 150, 1, 1.0)
    points = np.array(face.points).reshape(5, 2)[[1, 0, 2, 4, 3]]
    assert outcome(of(face._replace(points=tuple(points.ravel().tolist())))).reason in ("turned", "poor_fit")
