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
from lapcvae.data.warp import averaged, border_share, cut, measure, warp
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
    outside = border_share(to_crop(matrices, 64), frames, 64)
    assert np.isnan(outside[0])
    assert outside[1] == 0


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
        small = warp(image, to_crop(similarity(points), size), size).astype(float)[..., 0]
        total = small.sum()
        rows, columns = np.mgrid[:size, :size]
        centre = np.array([(columns * small).sum(), (rows * small).sum()]) / total
        assert np.abs(centre - wanted[i]).max() < 0.1, (i, centre, wanted[i])


@pytest.mark.parametrize("reduction", [2.3125, 2.5, 3, 3.3, 3.6, 4, 4.4, 5, 6, 7.5, 11])
def test_of_stripes_too_fine_to_show_little_is_left(reduction: float) -> None:
    # One pixel white, one black, the finest there is: all that is right is an even grey.
    image = np.zeros((1800, 1800, 3), np.uint8)
    image[:, ::2] = 255
    for phase in (0, 0.1, 0.3, 0.7):
        face = warp(image, to_crop(turned(0, 148 / 64 / reduction, (phase, 0)), 64), 64) - 127.5
        # A mean of three pixels leaves a third; a plain resize would leave all.
        assert np.sqrt((face**2).mean()) / 127.5 < 0.34


@pytest.mark.parametrize("scale", [3.0, 6.5, 14.0, 30.0])
def test_a_large_photograph_is_decoded_at_a_reduced_size_and_gives_the_same_face(
    faces: dict[str, bytes], scale: float
) -> None:
    image = Image.open(io.BytesIO(next(iter(faces.values())))).convert("RGB")
    side = round(160 * scale)
    large = encode(image.resize((side, side), Image.Resampling.BICUBIC), "JPEG", quality=95)
    crop = to_crop(turned(4, 160 / side, (10, 30)), 64)
    small = cut(large, crop, 64, DECODING).astype(float)
    assert np.abs(small - warp(decode(large, DECODING), crop, 64)).mean() < 1


@pytest.mark.parametrize("scale", [0.8, 1.3, 2.0, 3.1])
def test_a_face_is_what_many_samples_a_pixel_give(faces: dict[str, bytes], scale: float) -> None:
    for data in list(faces.values())[:5]:
        image = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((round(250 * scale),) * 2))
        matrix = turned(8, 1.1 / scale, (-40, -30))
        crop = to_crop(matrix, 64)
        fine = cv2.warpAffine(image, to_crop(matrix, 64 * 8), (512, 512), flags=cv2.INTER_LINEAR)
        many = fine.reshape(64, 8, 64, 8, 3).astype(float).mean((1, 3))
        inside = border_share(crop[None], np.array([image.shape[1::-1]]), 64)[0] == 0
        assert inside
        assert np.abs(warp(image, crop, 64) - many).mean() < 1


@pytest.mark.parametrize("reduction", [1, 3, 5, 7])
@pytest.mark.parametrize("size", [16, 64, 100, 128, 333])
def test_reductions_by_odd_numbers_average_as_opencv_averages_areas(reduction: int, size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (reduction * size, reduction * size, 3), dtype=np.uint8)
    crop = np.array([[1 / reduction, 0, 0], [0, 1 / reduction, 0]])
    crop[:, 2] = (0.5 / reduction) - 0.5
    matrix = crop * 148 / size
    matrix[:, 2] = (crop[:, 2] + 0.5) * 148 / size - 0.5 + [15, 40]
    assert np.allclose(to_crop(matrix, size), crop)
    area = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    assert np.array_equal(warp(image, to_crop(matrix, size), size), area)


@given(st.floats(1, 8))
def test_a_mean_is_as_wide_as_it_says(width: float) -> None:
    image = np.zeros((21, 21, 1), np.uint8)
    image[10] = 255  # a line shows the weights across it
    weights = averaged(image, width)[:, 10].ravel() / 255
    assert weights.sum() == pytest.approx(1, abs=0.03)  # each is rounded to a 255th
    assert np.abs(weights - weights[::-1]).max() < 1.5 / 255
    assert (weights * (np.arange(21) - 10) ** 2).sum() == pytest.approx((width**2 - 1) / 12, abs=0.25)
    assert not weights[np.abs(np.arange(21) - 10) > (width + 1) / 2].any()


@given(st.floats(-40, 40), st.floats(0.6, 3.4), st.floats(-60, 60), st.floats(-60, 60))
def test_only_the_part_that_is_shown_is_looked_at_and_the_outside_is_a_mirror(
    angle: float, scale: float, x: float, y: float
) -> None:
    rows, columns = np.mgrid[:300, :280]
    image = np.stack([rows % 240, columns % 240, (rows + columns) % 240], 2).astype(np.uint8)
    forward = turned(angle, scale, (140 + x, 150 + y))
    matrix = similarity((POINTS - POINTS.mean(0)) @ forward[:, :2].T + forward[:, 2])
    wide = matrix.copy()
    wide[:, 2] -= matrix[:, :2] @ (279, 279)
    mirrored = np.pad(image, ((279, 279), (279, 279), (0, 0)), mode="reflect")
    assert np.abs(warp(image, to_crop(matrix, 64), 64).astype(int) - warp(mirrored, to_crop(wide, 64), 64)).mean() < 0.2


def test_the_middle_of_the_protocol_is_cut() -> None:
    # A photograph that is the aligned layout itself: the crop is rows 40..188 and columns 15..163.
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (218, 178, 3), dtype=np.uint8)
    identity = np.array([[1.0, 0, 0], [0, 1, 0]])
    assert np.array_equal(warp(image, to_crop(identity, 148), 148), image[40:188, 15:163])
    assert np.allclose(to_crop(identity, 74)[:, 2], (np.array([-15, -40]) + 0.5) / 2 - 0.5)


def test_outside_is_reflected_and_told() -> None:
    image = np.full((100, 100, 3), 200, np.uint8)
    crop = to_crop(turned(0, 1.0, (15 + 74, 40)), 148)  # the photograph's left edge is in the middle of the crop
    face = warp(image, crop, 148)
    assert face.min() == 200
    frame = np.array([[100, 100]])
    assert border_share(crop[None], frame, 148)[0] == pytest.approx(1 - 74 * 100 / 148**2, abs=1e-3)
    assert border_share(to_crop(turned(0, 1, (1000, 1000)), 64)[None], frame, 64)[0] == 1.0


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
