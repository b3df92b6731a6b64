"""Which face a photograph is of, and whether it is good enough to be aligned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lapcvae.data.manifest import Row
from lapcvae.data.sight import Face, Sight
from lapcvae.data.template import HEIGHT_PX, WIDTH_PX, residual, rotation_deg, similarity, to_crop
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
    if len(sure) == 1:  # as a rule
        return sure[0]
    large = [f for f in sure if eye_distance(f) >= config.min_eye_distance_px]
    return min(large or sure, key=lambda f: (_from_middle(f, sight), -f.score), default=None)


def eye_distance(face: Face) -> float:
    """Pixels between the eyes in the source photograph."""
    x1, y1, x2, y2 = face.points[:4]
    return math.hypot(x2 - x1, y2 - y1)


def _from_middle(face: Face, sight: Sight) -> float:
    left, top, width, height = face.box
    return math.hypot(left + width / 2 - (sight.width - 1) / 2, top + height / 2 - (sight.height - 1) / 2)


def judge(
    rows: Sequence[Row], sights: Sequence[Sight | None], config: AlignConfig, aligned: Sequence[bool]
) -> list[np.ndarray | None]:
    """Fill in what is known before the warp; returns the crop of each (see `template.to_crop`), None if now rejected.

    A photograph that comes `aligned` from its makers (178 x 218 pixels) is taken as it is, whatever its points; one
    without a sight is rejected already. Many at once, because arrays cost as much for one as for hundreds.
    """
    faces = [None if sight is None else _face(row, sight, config) for row, sight in zip(rows, sights, strict=True)]
    found = [(i, rows[i], face.points) for i, face in enumerate(faces) if face is not None]
    crops: list[np.ndarray | None] = [None] * len(rows)
    if not found:
        return crops
    points = np.array([values for _, _, values in found]).reshape(-1, 5, 2)
    frames = np.array([(row.width, row.height) for _, row, _ in found], dtype=np.float64)
    as_is = np.array([aligned[i] for i, _, _ in found]) & (frames == (WIDTH_PX, HEIGHT_PX)).all(1)
    fitted = np.where(as_is[:, None, None], np.eye(2, 3), similarity(points))
    fitted_crops = to_crop(fitted, config.size_px)
    measures = (
        np.hypot(*(points[:, 1] - points[:, 0]).T),
        residual(points, fitted),
        rotation_deg(fitted),
        border_share(fitted_crops, frames, config.size_px),
        as_is,
    )
    for n, (distance, error, turn, border, taken) in enumerate(zip(*(of.tolist() for of in measures), strict=True)):
        i, row, _ = found[n]
        row.eye_distance_px = round(distance, 3)
        if not taken:
            if row.eye_distance_px < config.min_eye_distance_px:
                reject(row, "small_face")
                continue
            if not math.isfinite(error):  # all five points are one
                reject(row, "poor_fit")
                continue
            row.rotation_deg, row.border_share = round(turn, 3), round(border, 4)
        row.residual = round(error, 5)
        reason = "" if taken else _misfit(row, config)
        if reason:
            reject(row, reason)
        else:
            crops[i] = fitted_crops[n]
    return crops


def _face(row: Row, sight: Sight, config: AlignConfig) -> Face | None:
    """The face to align, None if `row` is now rejected for want of one."""
    row.pixels_sha256, row.phash, row.sharpness = sight.pixels_sha256, sight.phash, sight.sharpness
    row.width, row.height, row.faces = sight.width, sight.height, len(sight.faces)
    if sight.reason:
        reject(row, sight.reason)
        return None
    face = choose(sight, config)
    if face is None:
        reject(row, "no_face")
        return None
    row.score = face.score
    return face


def _misfit(row: Row, config: AlignConfig) -> str:
    if abs(row.rotation_deg) > config.max_rotation_deg:
        return "turned"
    if row.residual > config.max_residual:
        return "poor_fit"
    return "outside_frame" if row.border_share > config.max_border_share else ""


def reject(row: Row, reason: str) -> None:
    """Make `row` a rejected one."""
    row.status, row.reason, row.row, row.split, row.aligned_sha256 = "rejected", reason, -1, "", ""
