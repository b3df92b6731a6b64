import pytest
import torch

from lapcvae.editing import sampling
from lapcvae.editing.interpolation import interpolate, rows_by_level
from lapcvae.errors import ConfigError
from lapcvae.models.cascade import Cascade
from lapcvae.pyramid.filters import expand


def test_the_same_seed_gives_the_same_faces(model: Cascade) -> None:
    one = sampling.sample(model, 3, 4)
    assert torch.equal(one, sampling.sample(model, 3, 4))
    assert not torch.equal(one, sampling.sample(model, 3, 5))
    assert one.shape == (3, 3, 64, 64)


@pytest.mark.parametrize("k", [2, 3])
def test_coarse_levels_are_the_photographs_own(model: Cascade, faces: torch.Tensor, k: int) -> None:
    kept = model.reconstruct(faces[:1])[k - 1].rebuilt
    drawn = sampling.keep_photograph(model, faces[:1], k, 4, 0)
    assert not torch.equal(drawn[0], drawn[1])
    silent = [model.level(j) for j in range(1, k)]
    for level in silent:  # levels without output leave what is kept as it was, only enlarged
        for parameter in level.renderer.smooth.parameters():  # type: ignore[union-attr]
            torch.nn.init.zeros_(parameter)
    still = sampling.keep_photograph(model, faces[:1], k, 2, 0)
    expected = kept
    while expected.shape[-1] < 64:
        expected = expand(expected)
    torch.testing.assert_close(still, expected.expand(2, -1, -1, -1), atol=1e-5, rtol=0)


def test_keeping_all_levels_is_the_reconstruction(model: Cascade, faces: torch.Tensor) -> None:
    rebuilt = model.reconstruct(faces[:1])[0].rebuilt
    torch.testing.assert_close(sampling.keep_photograph(model, faces[:1], 1, 1, 0), rebuilt, atol=1e-6, rtol=0)


def test_faces_of_one_sample_begin_with_it(model: Cascade) -> None:
    row = sampling.keep_sample(model, 3, 4, 7)
    torch.testing.assert_close(row[:1], sampling.sample(model, 1, 7), atol=1e-6, rtol=0)
    assert not torch.equal(row[0], row[1])


def test_rows_become_more_alike(model: Cascade, faces: torch.Tensor) -> None:
    for face in (faces[:1], None):
        coarse, fine = sampling.rows_of_levels(model, face, 6, 0)
        assert float(coarse.std(0).mean()) > float(fine.std(0).mean())


@pytest.mark.parametrize("k", [0, 4])
def test_unknown_levels_are_refused(model: Cascade, faces: torch.Tensor, k: int) -> None:
    with pytest.raises(ConfigError, match=f"no level {k}"):
        sampling.keep_photograph(model, faces[:1], k, 1, 0)
    with pytest.raises(ConfigError, match=f"no level {k}"):
        sampling.keep_sample(model, k, 1, 0)


def test_interpolation_ends_at_both_reconstructions(model: Cascade, faces: torch.Tensor) -> None:
    start, end = faces.split(1)
    row = interpolate(model, start, end, 5)
    torch.testing.assert_close(row[:1], model.reconstruct(start)[0].rebuilt, atol=1e-5, rtol=0)
    torch.testing.assert_close(row[-1:], model.reconstruct(end)[0].rebuilt, atol=1e-5, rtol=0)
    # The second of five is nearer to the start than to the end.
    assert (row[1] - row[0]).square().mean() < (row[1] - row[4]).square().mean()


def test_a_level_moves_alone(model: Cascade, faces: torch.Tensor) -> None:
    rows = rows_by_level(model, *faces.split(1), 3)
    assert len(rows) == 4
    for row in rows[1:]:
        torch.testing.assert_close(row[0], rows[0][0], atol=1e-5, rtol=0)
        assert not torch.allclose(row[2], rows[0][2], atol=1e-4)
    # What a finer level alone can change is finer: less of it is left at 16 px.
    left = [float(torch.nn.functional.avg_pool2d(row[2] - row[0], 4).square().mean()) for row in rows[1:]]
    all_of_it = [float((row[2] - row[0]).square().mean()) for row in rows[1:]]
    assert left[2] / all_of_it[2] < left[0] / all_of_it[0]


def test_steps_and_levels_that_cannot_be(model: Cascade, faces: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="two steps at least"):
        interpolate(model, *faces.split(1), 1)
    with pytest.raises(ConfigError, match="levels 1 to 3"):
        interpolate(model, *faces.split(1), 3, [4])
