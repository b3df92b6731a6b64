"""Near-duplicates are found and kept out of two splits; nothing ever moves."""

from __future__ import annotations

import io

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from lapcvae.data.duplicates import ACROSS, DUPLICATE, KEEP, DuplicatesConfig, decide, near_groups
from tests.data import made


def hash_of(image: Image.Image) -> np.ndarray:
    return np.packbits(imagehash.phash(image.convert("L"), hash_size=16).hash.ravel())


def groups_by_force(hashes: np.ndarray, distance: int) -> np.ndarray:
    count = len(hashes)
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(2, dtype=int) <= distance
    labels = np.arange(count)
    for _ in range(count):
        labels = np.array([labels[near[i]].min() for i in range(count)])
    return labels


def test_the_same_photograph_in_other_forms_is_one_group(faces: dict[str, bytes]) -> None:
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in list(faces.values())[:12]]
    hashes, of = [], []
    for i, image in enumerate(images):
        small, dim = image.resize((160, 160)), ImageEnhance.Brightness(image).enhance(0.8)
        poor = Image.open(io.BytesIO(made.encode(image, "JPEG", quality=30)))
        for form in (image, small, dim, poor):
            hashes.append(hash_of(form))
            of.append(i)
    assert near_groups(np.array(hashes), 40).tolist() == [4 * i for i in of]


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_those_found_by_comparing_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 256, (200, 32), dtype=np.uint8)
    for i in range(100, 200):  # near-copies, in chains
        hashes[i] = hashes[rng.integers(0, i)]
        for place in rng.integers(0, 256, rng.integers(0, 8)):
            hashes[i, place // 8] ^= 1 << (place % 8)
    assert np.array_equal(near_groups(hashes, 7), groups_by_force(hashes, 7))


def test_fine_detail_may_differ_in_many_bits() -> None:
    """What changes in compression are the higher of the 16 x 16 frequencies: the right half, and the lower."""
    hashes = np.random.default_rng(0).integers(0, 256, (50, 16, 2), dtype=np.uint8)
    right, lower = hashes.copy(), hashes.copy()
    right[:, :4, 1] ^= 255
    lower[:, 8:10] ^= 255
    groups = near_groups(np.concatenate([hashes, right, lower]).reshape(-1, 32), 32)
    assert groups.tolist() == 3 * list(range(50))


def test_ten_thousand_equal_hashes_are_one_group_at_once() -> None:
    assert near_groups(np.zeros((10_000, 32), np.uint8), 40).max() == 0


def test_no_photographs_make_no_groups() -> None:
    assert near_groups(np.zeros((0, 32), np.uint8), 40).shape == (0,)


def test_equal_pixels_are_kept_once() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (4, 32), dtype=np.uint8)
    hashes[3] = hashes[1]
    pixels = np.array([b"a", b"b", b"c", b"b"], dtype="V16")
    outcome, labels = decide(pixels, hashes, np.array([0, 0, 2, 0]), 40)
    assert outcome.tolist() == [KEEP, KEEP, KEEP, DUPLICATE]
    assert labels.tolist() == [0, 1, 2, 1]


def test_a_group_in_two_splits_keeps_the_one_that_is_tested_on() -> None:
    hashes = np.zeros((3, 32), np.uint8)
    hashes[1, 0] = 1
    pixels = np.array([b"a", b"b", b"c"], dtype="V16")
    outcome, _ = decide(pixels, hashes, np.array([0, 2, 1], dtype=np.uint8), 40)
    assert outcome.tolist() == [ACROSS, KEEP, ACROSS]


def test_a_group_in_one_split_is_kept_whole() -> None:
    pixels = np.array([b"a", b"b"], dtype="V16")
    outcome, labels = decide(pixels, np.zeros((2, 32), np.uint8), np.array([1, 1]), 40)
    assert outcome.tolist() == [KEEP, KEEP]
    assert labels.tolist() == [0, 0]


def test_a_distance_that_would_take_strangers_for_the_same_is_refused() -> None:
    with pytest.raises(ValueError, match="0 to 64"):
        DuplicatesConfig(100)
