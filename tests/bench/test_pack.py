import numpy as np
import pytest

from bench.pack import AT_ONCE, SIDE, faces_of, mosaic


@pytest.mark.parametrize("count", [1, 17, AT_ONCE])
def test_a_mosaic_holds_its_faces_in_order(count: int) -> None:
    faces = np.random.default_rng(0).integers(1, 256, (count, SIDE, SIDE, 3), np.uint8)
    again = faces_of(mosaic(faces))
    assert (again[:count] == faces).all()
    assert not again[count:].any()
