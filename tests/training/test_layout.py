"""An update's tensors in one row of bytes: what is read from it is what was put in."""

import pytest
import torch
from torch import Tensor

from lapcvae.training.layout import Inputs, Layout

PARTS = [slice(2, 4), slice(6, 8)]
NOISE = [(3, 5), (7,)]


def picked(images: int) -> tuple[Tensor, ...]:
    """Of types and shapes whose bytes do not end where the next could begin, one of them twice."""
    flips = torch.randint(0, 2, (images,))
    pixels = torch.randint(0, 256, (images, 3, 3, 3), dtype=torch.uint8)
    return pixels, flips, torch.rand(images, 2, 5).half(), flips


@pytest.mark.parametrize("updates", [1, 3])
def test_what_was_put_in_comes_out(updates: int) -> None:
    torch.manual_seed(0)
    layout = Layout(picked(1), NOISE, 8, PARTS)
    rows = torch.empty(updates, layout.size, dtype=torch.uint8)
    put = picked(4 * updates)
    layout.put(rows, put)
    drawn = [[torch.randn(8, *shape) for shape in NOISE] for _ in range(updates)]
    for row, tensors in zip(rows, drawn, strict=True):
        for place, tensor in zip(layout.noise(row), tensors, strict=True):
            place.copy_(tensor)
    for update, row in enumerate(rows):
        for part, (packed, noise) in enumerate(Inputs(row, layout).batches()):
            first = 4 * update + 2 * part
            for found, tensor in zip(packed, put, strict=True):
                assert found.dtype == tensor.dtype
                assert torch.equal(found, tensor[first : first + 2])
            for found, whole in zip(noise, drawn[update], strict=True):
                assert torch.equal(found, whole[PARTS[part]])


def test_what_is_there_twice_has_one_place() -> None:
    layout = Layout(picked(1), [], 8, PARTS)
    (packed, _), *_ = layout.batches(torch.zeros(layout.size, dtype=torch.uint8))
    assert packed[1].data_ptr() == packed[3].data_ptr()
    assert len({tensor.data_ptr() for tensor in packed}) == 3
    assert all(tensor.data_ptr() % tensor.element_size() == 0 for tensor in packed)
