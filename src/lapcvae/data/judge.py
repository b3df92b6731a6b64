"""Which face a photograph is of, and whether it is good enough to be aligned."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lapcvae.data.manifest import Row
from lapcvae.data.sight import Face, Sight, point_array
from lapcvae.data.template import HEIGHT_PX, WIDTH_PX, residual, rotation_deg, similarity
from lapcvae.data.warp import border_share


@dataclass(frozen=True)
class AlignConfig:
    """The `align` section of params.yaml: the size of the result and what is good enough."""

    size_px: int  # a side of the result; not `size`: DVC leaves keys of that name out when it looks for earlier runs
    min_score: float
    min_eye_distance_px: float
    max_rotation_deg: float
    max_residual: float
    max_border_share: float
    min_contrast: float

    def __post_init__(self) -> None:
        if not 8 <= self.size_px <= 1024:
            raise ValueError("size_px must be 8 to 1024 pixels")


def choose(sight: Sight, config: AlignConfig) -> Face | None:
    """The face that a photograph is of: among those sure enough, and large enough if any is, the most central."""
    sure = [f for f in sight.faces if f.score >= config.min_score]
    large = [f for f in sure if eye_distance(f) >= config.min_eye_distance_px]
    return min(large or sure, key=lambda f: (_from_middle(f, sight), -f.score), default=None)


def eye_distance(face: Face) -> float:
    """Pixels between the eyes in the source photograph."""
    x1, y1, x2, y2 = face.points[:4]
    return math.hypot(x2 - x1, y2 - y1)


def _from_middle(face: Face, sight: Sight) -> float:
    left, top, width, height = face.box
    return math.hypot(left + width / 2 - (sight.width - 1) / 2, top + height / 2 - (sight.height - 1) / 2)


def judge(row: Row, sight: Sight, config: AlignConfig, aligned: bool = False) -> np.ndarray | None:
    """Fill in what is known before the warp; returns the similarity to the template, None if `row` is now rejected.

    A photograph that comes `aligned` from its makers (178 x 218 pixels) is taken as it is, whatever its points.
    """
    reason, matrix = _fit(row, sight, config, aligned)
    if reason:
        reject(row, reason)
        return None
    return matrix


def _fit(row: Row, sight: Sight, config: AlignConfig, aligned: bool) -> tuple[str, np.ndarray | None]:
    row.pixels_sha256, row.phash, row.sharpness = sight.pixels_sha256, sight.phash, sight.sharpness
    row.width, row.height, row.faces = sight.width, sight.height, len(sight.faces)
    if sight.reason:
        return sight.reason, None
    face = choose(sight, config)
    if face is None:
        return "no_face", None
    row.score, row.eye_distance_px = face.score, round(eye_distance(face), 3)
    points = point_array(face)
    if aligned and (sight.width, sight.height) == (WIDTH_PX, HEIGHT_PX):
        row.residual = round(residual(points, np.eye(2, 3)), 5)
        return "", np.eye(2, 3)
    if row.eye_distance_px < config.min_eye_distance_px:
        return "small_face", None
    try:
        matrix = similarity(points)
    except ValueError:
        return "poor_fit", None
    row.residual = round(residual(points, matrix), 5)
    row.rotation_deg = round(rotation_deg(matrix), 3)
    row.border_share = round(border_share(matrix, sight.width, sight.height, config.size_px), 4)
    if abs(row.rotation_deg) > config.max_rotation_deg:
        return "turned", None
    if row.residual > config.max_residual:
        return "poor_fit", None
    if row.border_share > config.max_border_share:
        return "outside_frame", None
    return "", matrix


def reject(row: Row, reason: str) -> None:
    """Make `row` a rejected one."""
    row.status, row.reason, row.row, row.split, row.aligned_sha256 = "rejected", reason, -1, "", ""
