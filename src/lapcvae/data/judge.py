"""Which face a photograph is of, and whether it is good enough to be aligned."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lapcvae.data.detector import Face
from lapcvae.data.landmarks import Sight, point_array
from lapcvae.data.manifest import Row
from lapcvae.data.template import HEIGHT_PX, WIDTH_PX, residual, rotation_deg, similarity
from lapcvae.data.warp import border_share


@dataclass(frozen=True)
class AlignConfig:
    """The `align` section of params.yaml: the size of the result and what is good enough."""

    size: int
    min_score: float
    min_eye_distance_px: float
    max_rotation_deg: float
    max_residual: float
    max_border_share: float
    min_contrast: float

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 1024:
            raise ValueError("size must be 8 to 1024 pixels")


def choose(sight: Sight, config: AlignConfig) -> Face | None:
    """The face that a photograph is of: among those sure enough, and large enough if any is, the most central."""
    sure = [f for f in sight.faces if f.score >= config.min_score]
    large = [f for f in sure if eye_distance(f) >= config.min_eye_distance_px]
    middle = np.array([sight.width - 1, sight.height - 1]) / 2
    return min(large or sure, key=lambda f: (float(np.hypot(*(_centre(f) - middle))), -f.score), default=None)


def eye_distance(face: Face) -> float:
    """Pixels between the eyes in the source photograph."""
    points = point_array(face)
    return float(np.hypot(*(points[1] - points[0])))


def _centre(face: Face) -> np.ndarray:
    left, top, width, height = face.box
    return np.array([left + width / 2, top + height / 2])


def judge(row: Row, sight: Sight, config: AlignConfig, aligned: bool = False) -> tuple[Row, np.ndarray | None]:
    """Fill in what is known before the warp; the second is the similarity to the template, None if rejected.

    A photograph that comes `aligned` from its makers (178 x 218 pixels) is taken as it is, whatever its points.
    """
    row = replace(
        row,
        pixels_sha256=sight.pixels_sha256,
        phash=sight.phash,
        width=sight.width,
        height=sight.height,
        sharpness=sight.sharpness,
        faces=len(sight.faces),
    )
    if sight.reason:
        return rejected(row, sight.reason), None
    face = choose(sight, config)
    if face is None:
        return rejected(row, "no_face"), None
    row = replace(row, score=face.score, eye_distance_px=round(eye_distance(face), 3))
    if aligned and (sight.width, sight.height) == (WIDTH_PX, HEIGHT_PX):
        return replace(row, residual=round(residual(point_array(face), np.eye(2, 3)), 5)), np.eye(2, 3)
    if row.eye_distance_px < config.min_eye_distance_px:
        return rejected(row, "small_face"), None
    points = point_array(face)
    try:
        matrix = similarity(points)
    except ValueError:
        return rejected(row, "poor_fit"), None
    row = replace(
        row,
        residual=round(residual(points, matrix), 5),
        rotation_deg=round(rotation_deg(matrix), 3),
        border_share=round(border_share(matrix, sight.width, sight.height, config.size), 4),
    )
    if abs(row.rotation_deg) > config.max_rotation_deg:
        return rejected(row, "turned"), None
    if row.residual > config.max_residual:
        return rejected(row, "poor_fit"), None
    if row.border_share > config.max_border_share:
        return rejected(row, "outside_frame"), None
    return row, matrix


def rejected(row: Row, reason: str) -> Row:
    """`row` as rejected for `reason`."""
    return replace(row, status="rejected", reason=reason, row=-1, split="", aligned_sha256="")
