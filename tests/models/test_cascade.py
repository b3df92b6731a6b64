from collections.abc import Callable

import pytest
import torch

from lapcvae.models.cascade import Cascade, run_level
from lapcvae.models.level import Coarser
from lapcvae.pyramid.filters import expand
from lapcvae.pyramid.laplacian import build, gaussian_pyramid

STYLES = [
    {"network": "residual", "latent": "spatial"},
    {"network": "residual", "latent": "vector"},
    {"network": "plain", "latent": "vector", "loop": "open", "residual_posterior": False},
    {"network": "plain", "latent": "spatial", "prior": "standard"},
    {"sigma": "learned"},
]


@pytest.mark.parametrize("style", STYLES)
def test_levels_rebuild_what_the_equations_say(
    cascade: Callable[..., Cascade], faces: torch.Tensor, style: dict[str, str]
) -> None:
    passes = cascade(**style).reconstruct(faces)
    assert [p.rebuilt.shape[-1] for p in passes] == [64, 32, 16]
    torch.testing.assert_close(passes[2].rebuilt, passes[2].mean)
    for fine, coarse in ((passes[0], passes[1]), (passes[1], passes[2])):
        torch.testing.assert_close(fine.rebuilt, expand(coarse.rebuilt) + fine.mean)
        assert (fine.kl() >= -1e-5).all()


def test_open_loop_models_the_laplacian_band(cascade: Callable[..., Cascade], faces: torch.Tensor) -> None:
    passes = cascade(loop="open").reconstruct(faces)
    for done, band in zip(passes, build(faces, 3), strict=True):
        torch.testing.assert_close(done.target, band)


def test_closed_loop_models_what_is_left(cascade: Callable[..., Cascade], faces: torch.Tensor) -> None:
    passes = cascade(loop="closed").reconstruct(faces)
    truth = gaussian_pyramid(faces, 3)
    for done, coarser, x in zip(passes, passes[1:], truth, strict=False):
        torch.testing.assert_close(done.target, x - expand(coarser.rebuilt))


def test_a_perfect_decoder_in_closed_loop_repairs_any_coarse_error(
    cascade: Callable[..., Cascade], faces: torch.Tensor
) -> None:
    level = cascade(loop="closed").level(1)
    wrong = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(9))
    done = run_level(level, faces, Coarser(wrong, wrong, -1.0), "burt", None)
    torch.testing.assert_close(expand(wrong) + done.target, faces, atol=1e-6, rtol=0)


def test_gradients_reach_the_prior_network(cascade: Callable[..., Cascade], faces: torch.Tensor) -> None:
    level = cascade().level(1).train()
    coarse = torch.rand(4, 3, 32, 32)
    done = run_level(level, faces, Coarser(coarse, 0.05 * coarse, -3.0), "burt", torch.Generator().manual_seed(0))
    done.kl().sum().backward()
    assert level.prior_trunk is not None
    gradients = [p.grad for p in [*level.prior_trunk.parameters(), *level.to_prior.parameters()]]
    assert all(g is not None for g in gradients)
    assert sum(float(g.abs().sum()) for g in gradients if g is not None) > 0


def test_the_prior_depends_on_the_coarser_level(cascade: Callable[..., Cascade]) -> None:
    level = cascade().level(1)
    a, b = torch.rand(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first, second = (level.prior(Coarser(x, 0.1 * x, -3.0), 4).mean for x in (a, b))
    assert (first - second).abs().max() > 1e-6
    standard = cascade(prior="standard").level(1).prior(Coarser(a, a, -3.0), 4)
    assert standard.mean.abs().max() == 0


def test_the_same_seed_draws_the_same_faces(cascade: Callable[..., Cascade]) -> None:
    model = cascade()
    first, second, other = (model.sample(3, torch.Generator().manual_seed(s)).images[0] for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert first.shape == (3, 3, 64, 64)


def test_a_coarser_level_never_sees_a_finer_one(cascade: Callable[..., Cascade], faces: torch.Tensor) -> None:
    model = cascade()
    before = [p.rebuilt.clone() for p in model.reconstruct(faces)]
    with torch.no_grad():
        for parameter in model.level(1).parameters():
            parameter.add_(0.1)
    after = [p.rebuilt for p in model.reconstruct(faces)]
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert torch.equal(before[2], after[2])
