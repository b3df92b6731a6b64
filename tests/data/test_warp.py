"""The similarity is least squares; the warp puts the points where the template wants them, without alias."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lapcvae.data.decode import DecodeConfig, decode
from lapcvae.data.template import POINTS, residual, rotation_deg, similarity, to_crop
from lapcvae.data.warp import border_share, cut, measure, warp
from tests.data.made import encode

DECODING = DecodeConfig(max_pixels=50_000_000, min_side_px=32, max_aspect=8.0)


def turned(angle_deg: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    c, s = scale * np.cos(np.radians(angle_deg)), scale * np.sin(np.radians(angle_deg))
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


@given(st.floats(-179, 179), st.floats(0.05, 20), st.floats(-500, 500), st.floats(-500, 500))
def test_an_exact_similarity_is_found(angle: float, scale: float, x: float, y: float) -> None:
    forward = turned(angle, scale, (x, y))
    points = POINTS @ forward[:, :2].T + forward[:, 2]
    back = similarity(points)
    assert residual(points, back) < 1e-6
    assert abs((rotation_deg(back) + angle + 180) % 360 - 180) < 1e-6


def test_it_is_the_least_squares_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = POINTS * 1.3 + rng.normal(0, 6, POINTS.shape)
        best = similarity(points)
        for _ in range(20):
            other = best + rng.normal(0, 1e-3, best.shape)
            other[1] = [-other[0, 1], other[0, 0], other[1, 2]]  # still a similarity
            other[0, 1] = -other[1, 0]
            assert residual(points, best) <= residual(points, other) + 1e-12


def test_a_mirrored_face_does_not_fit() -> None:
    mirrored = POINTS * [-1, 1] + [178, 0]
    assert residual(mirrored, similarity(mirrored)) > 0.5


def test_one_point_five_times_has_no_similarity() -> None:
    matrices = similarity(np.stack([np.full((5, 2), 7.0), POINTS]))
    assert np.isnan(matrices[0]).all()
    assert np.allclose(matrices[1], np.eye(2, 3))
    frames = np.array([[100, 100], [178, 218]])
    assert np.isnan(border_share(matrices, frames, 64)[0])
    assert border_share(matrices, frames, 64)[1] == 0


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize(("angle", "scale"), [(0, 1), (20, 0.9), (-35, 2.5), (10, 14.0)])
def test_points_land_on_the_template(size: int, angle: float, scale: float) -> None:
    forward = turned(angle, scale, (300 * scale, 200 * scale))
    points = POINTS @ forward[:, :2].T + forward[:, 2]
    side = int(700 * scale)
    image = np.zeros((side, side, 3), np.uint8)
    drawn = np.round(points)
    on_template = (drawn - forward[:, 2]) @ np.linalg.inv(forward[:, :2]).T
    wanted = (on_template - [15, 40] + 0.5) * size / 148 - 0.5
    radius = 3 * scale
    for i, (x, y) in enumerate(drawn):
        image[:] = 0
        cv2.circle(image, (round(x), round(y)), round(radius), (255, 255, 255), -1)
        small = warp(image, similarity(points), size).astype(float)[..., 0]
        total = small.sum()
        rows, columns = np.mgrid[:size, :size]
        centre = np.array([(columns * small).sum(), (rows * small).sum()]) / total
        assert np.abs(centre - wanted[i]).max() < 0.1, (i, centre, wanted[i])


def test_fine_stripes_do_not_alias() -> None:
    # Stripes two pixels wide, four source pixels a pixel of the result: all that is right is an even grey.
    image = np.zeros((800, 800, 3), np.uint8)
    image[:, ::2] = 255
    matrix = turned(0, 148 / 64 / 4, (0, 0))
    face = warp(image, matrix, 64)
    assert face.std() < 3
    assert abs(face.mean() - 127.5) < 3


@pytest.mark.parametrize("scale", [3.0, 6.5, 14.0, 30.0])
def test_a_large_photograph_is_decoded_at_a_reduced_size_and_gives_the_same_face(
    faces: dict[str, bytes], scale: float
) -> None:
    image = Image.open(io.BytesIO(next(iter(faces.values())))).convert("RGB")
    side = round(160 * scale)
    large = encode(image.resize((side, side), Image.Resampling.BICUBIC), "JPEG", quality=95)
    matrix = turned(4, 160 / side, (10, 30))
    small = cut(large, matrix, 64, DECODING).astype(float)
    assert np.abs(small - warp(decode(large, DECODING), matrix, 64)).mean() < 1


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("size", [16, 64, 100, 128, 333])
def test_samples_are_averaged_as_opencv_averages_areas(samples: int, size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (samples * size, samples * size, 3), dtype=np.uint8)
    crop = np.array([[1 / samples, 0, 0], [0, 1 / samples, 0]])
    crop[:, 2] = (0.5 / samples) - 0.5
    matrix = crop * 148 / size
    matrix[:, 2] = (crop[:, 2] + 0.5) * 148 / size - 0.5 + [15, 40]
    assert np.allclose(to_crop(matrix, size), crop)
    area = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    assert np.array_equal(warp(image, matrix, size), area)


def test_the_middle_of_the_protocol_is_cut() -> None:
    # A photograph that is the aligned layout itself: the crop is rows 40..188 and columns 15..163.
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (218, 178, 3), dtype=np.uint8)
    identity = np.array([[1.0, 0, 0], [0, 1, 0]])
    assert np.array_equal(warp(image, identity, 148), image[40:188, 15:163])
    assert np.allclose(to_crop(identity, 74)[:, 2], (np.array([-15, -40]) + 0.5) / 2 - 0.5)


def test_outside_is_reflected_and_told() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    matrix = turned(0, 1.0, (15 + 74, 40))  # the photograph's left edge is in the middle of the crop
    face = warp(image, matrix, 148)
    assert face.min() == 200
    frame = np.array([[100, 100]])
    assert border_share(matrix[None], frame, 148)[0] == pytest.approx(1 - 74 * 100 / 148**2, abs=1e-3)
    assert border_share(turned(0, 1, (1000, 1000))[None], frame, 64)[0] == 1.0


def test_measures_of_known_faces() -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    assert measure(black).black_share == 1.0
    half = black.copy()
    half[:, 32:] = 100
    look = measure(half)
    assert look.brightness == pytest.approx(50)
    assert look.contrast == pytest.approx(50)
    assert look.black_share == 0.5
    assert look.aligned_sharpness > 0
