import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapcvae.pyramid import compiled
from lapcvae.pyramid.filters import expand, reduce
from lapcvae.pyramid.laplacian import build, collapse, level_sides

KINDS = ["burt", "bilinear", "haar"]


@pytest.mark.parametrize("side", [8, 32, 64, 128])
def test_burt_is_opencvs_pyrdown_and_pyrup(side: int) -> None:
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(side))
    image = x[0].permute(1, 2, 0).numpy()
    down = reduce(x)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(down, cv2.pyrDown(image), atol=1e-6)
    up = expand(reduce(x))[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(up, cv2.pyrUp(np.ascontiguousarray(down)), atol=1e-6)


@given(
    kind=st.sampled_from(KINDS),
    levels=st.integers(1, 4),
    height=st.integers(1, 3),
    width=st.integers(1, 3),
    batch=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_collapse_undoes_build(kind: str, levels: int, height: int, width: int, batch: int, seed: int) -> None:
    shape = (batch, 3, height * 4 * 2 ** (levels - 1), width * 4 * 2 ** (levels - 1))
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(collapse(build(x, levels, kind), kind), x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_image_has_empty_bands(kind: str) -> None:
    *bands, coarsest = build(torch.full((2, 3, 32, 32), 0.7), 3, kind)
    assert all(band.abs().max() < 1e-6 for band in bands)
    torch.testing.assert_close(coarsest, torch.full((2, 3, 8, 8), 0.7))


@pytest.mark.parametrize("kind", KINDS)
def test_filters_are_linear_and_alike_on_both_axes(kind: str) -> None:
    x, y = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for operator in (reduce, expand):
        torch.testing.assert_close(operator(2 * x - y, kind), 2 * operator(x, kind) - operator(y, kind))
        torch.testing.assert_close(operator(x.mT, kind), operator(x, kind).mT)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_the_same_to_the_bit_alone_in_a_batch_in_either_layout_and_with_a_gradient(kind: str) -> None:
    x = torch.rand(37, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    for operator in (reduce, expand):
        together = operator(x, kind)
        assert together.is_contiguous()
        for part in (1, 2, 16):
            assert torch.equal(torch.cat([operator(p, kind) for p in x.split(part)]), together)
        assert torch.equal(operator(x.contiguous(memory_format=torch.channels_last), kind), together)
        assert torch.equal(operator(x.clone().requires_grad_(), kind), together)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(operator(x, kind), together)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 1, 8, 20), (40, 3, 64, 64)])
def test_compiled_loops_give_the_bits_of_the_plain_ones(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_SHARE_BYTES", 1 << 16)  # the last in several threads
    x = torch.rand(shape, generator=torch.Generator().manual_seed(3))
    assert compiled.serves(x)
    levels = 2 if min(shape[-2:]) < 16 else 4
    fast = build(x, levels)
    found = [reduce(x), expand(x), *fast, collapse(fast)]
    monkeypatch.setattr(compiled, "_kernels", lambda: None)  # as where Numba is not installed
    assert not compiled.serves(x)
    slow = build(x, levels)
    for a, b in zip(found, [reduce(x), expand(x), *slow, collapse(slow)], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_keep_theirs(dtype: torch.dtype) -> None:
    x = torch.rand(2, 3, 16, 16, dtype=dtype, generator=torch.Generator().manual_seed(4))
    assert {t.dtype for t in [*build(x, 3), collapse(build(x, 3)), expand(x)]} == {dtype}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    x = torch.rand(1, 2, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: build(x, 2, kind), x)
    bands = [band.detach().requires_grad_() for band in build(x, 2, kind)]
    assert torch.autograd.gradcheck(lambda *bands: collapse(list(bands), kind), bands)


def test_sides() -> None:
    assert level_sides(64, 16) == [64, 32, 16]
    assert level_sides(128, 16) == [128, 64, 32, 16]
    assert level_sides(16, 16) == [16]


@pytest.mark.parametrize(("side", "coarsest"), [(63, 16), (64, 15), (64, 128), (96, 16), (64, 2)])
def test_sides_that_do_not_divide_are_refused(side: int, coarsest: int) -> None:
    with pytest.raises(ValueError, match="cannot be halved"):
        level_sides(side, coarsest)


def test_odd_images_are_refused() -> None:
    with pytest.raises(ValueError, match="must be even"):
        reduce(torch.zeros(1, 3, 15, 16))
