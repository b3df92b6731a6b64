import math
from collections.abc import Callable

import pytest
import torch

from lapcvae.models.cascade import Cascade, run_level
from lapcvae.models.level import Coarser
from lapcvae.models.likelihood import level_nll
from lapcvae.pyramid import haar
from lapcvae.pyramid.filters import PyramidKind, expand, reduce
from lapcvae.pyramid.laplacian import build, gaussian_pyramid

STYLES = [
    {"network": "residual", "latent": "spatial"},
    {"network": "residual", "latent": "vector"},
    {"network": "plain", "latent": "vector", "loop": "open", "residual_posterior": False},
    {"network": "plain", "latent": "spatial", "prior": "standard"},
    {"sigma": "learned"},
    {"kind": "haar", "loop": "open"},
    {"kind": "haar", "loop": "closed", "likelihood": "laplace"},
    {"kind": "bilinear", "prior": "latent", "sigma": "fixed", "sigma_255": 8.0},
    {"prior": "ancestral"},
    {"prior": "ancestral", "latent": "vector", "network": "plain"},
    {"prior": "latent", "latent": "vector"},
]
KINDS: list[PyramidKind] = ["burt", "bilinear", "haar"]
LEARNED_PRIORS = ["decoder_stats", "latent", "ancestral"]


@pytest.mark.parametrize("style", STYLES)
def test_levels_rebuild_what_the_equations_say(
    cascade: Callable[..., Cascade], faces: torch.Tensor, style: dict[str, str]
) -> None:
    model = cascade(**style)
    passes = model.reconstruct(faces)
    assert [p.rebuilt.shape[-1] for p in passes] == [64, 32, 16]
    torch.testing.assert_close(passes[2].rebuilt, passes[2].mean)
    for fine, coarse in ((passes[0], passes[1]), (passes[1], passes[2])):
        torch.testing.assert_close(fine.rebuilt, expand(coarse.rebuilt, model.kind) + fine.mean)
        assert (fine.kl() >= -1e-5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_open_loop_models_the_laplacian_band(
    cascade: Callable[..., Cascade], faces: torch.Tensor, kind: PyramidKind
) -> None:
    passes = cascade(loop="open", kind=kind).reconstruct(faces)
    for done, band in zip(passes, build(faces, 3, kind), strict=True):
        torch.testing.assert_close(done.target, band)


@pytest.mark.parametrize("kind", KINDS)
def test_closed_loop_models_what_is_left(
    cascade: Callable[..., Cascade], faces: torch.Tensor, kind: PyramidKind
) -> None:
    passes = cascade(loop="closed", kind=kind).reconstruct(faces)
    truth = gaussian_pyramid(faces, 3, kind)
    for done, coarser, x in zip(passes, passes[1:], truth, strict=False):
        torch.testing.assert_close(done.target, x - expand(coarser.rebuilt, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_decoder_in_closed_loop_repairs_any_coarse_error(
    cascade: Callable[..., Cascade], faces: torch.Tensor, monkeypatch: pytest.MonkeyPatch, kind: PyramidKind
) -> None:
    level = cascade(loop="closed", kind=kind).level(1)
    wrong = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(9))
    target = run_level(level, faces, Coarser(wrong, wrong, -1.0), kind, None).target
    monkeypatch.setattr(level, "decode", lambda z, condition: target)
    repaired = run_level(level, faces, Coarser(wrong, wrong, -1.0), kind, None)
    torch.testing.assert_close(repaired.rebuilt, faces, atol=1e-6, rtol=0)


def test_a_perfect_decoder_in_open_loop_leaves_the_coarse_error(
    cascade: Callable[..., Cascade], faces: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = cascade(loop="open").level(1)
    wrong = reduce(faces) + 0.1
    target = run_level(level, faces, Coarser(wrong, wrong, -1.0), "burt", None).target
    monkeypatch.setattr(level, "decode", lambda z, condition: target)
    rebuilt = run_level(level, faces, Coarser(wrong, wrong, -1.0), "burt", None).rebuilt
    torch.testing.assert_close(rebuilt, faces + 0.1, atol=1e-6, rtol=0)


@pytest.mark.parametrize("prior", LEARNED_PRIORS)
@pytest.mark.parametrize("residual", [False, True])
def test_gradients_reach_mean_and_spread_of_the_prior(
    cascade: Callable[..., Cascade], faces: torch.Tensor, prior: str, residual: bool
) -> None:
    """By way of the KL; of a posterior in the prior's units the KL does not change, and the way is the decoder's."""
    level = cascade(prior=prior, residual_posterior=residual).level(1).train()
    coarse, z = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 8, 8)
    seen = Coarser(coarse, 0.05 * coarse, -3.0, z, -z)
    done = run_level(level, faces, seen, "burt", torch.Generator().manual_seed(0))
    (done.error.square().sum() if residual else done.kl().sum()).backward()
    trunks = [m for m in (level.prior_trunk, level.prior_latent) if m is not None]
    assert len(trunks) == (2 if prior == "ancestral" else 1)
    for network in trunks:
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters() if p.ndim > 1)
    last = next(p for p in level.to_prior.parameters() if p.ndim > 1)
    assert last.grad is not None
    r_k, s_k = last.grad.chunk(2)  # rows of R_k, then of S_k
    assert r_k.abs().sum() > 0
    assert s_k.abs().sum() > 0


@pytest.mark.parametrize("prior", ["latent", "ancestral"])
def test_these_priors_read_the_coarser_latents(cascade: Callable[..., Cascade], prior: str) -> None:
    level = cascade(prior=prior).level(1)
    coarse = torch.rand(2, 3, 32, 32)
    a, b = (torch.full((2, 3, 8, 8), value) for value in (0.0, 1.0))
    first, second = (level.prior(Coarser(coarse, coarse, -3.0, z), 2).mean for z in (a, b))
    assert (first - second).abs().max() > 1e-6


def test_a_latent_prior_takes_the_typical_spread_where_latents_are_drawn(cascade: Callable[..., Cascade]) -> None:
    level = cascade(prior="latent").level(1)
    level.coarse_log_std.fill_(-1.5)
    coarse, z = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 8, 8)
    drawn = level.prior(Coarser(coarse, coarse, -3.0, z), 2)
    told = level.prior(Coarser(coarse, coarse, -3.0, z, torch.full_like(z, -1.5)), 2)
    assert torch.equal(drawn.mean, told.mean)


def test_an_ancestral_prior_reads_a_sample_in_training_and_the_mean_without_noise(
    cascade: Callable[..., Cascade], faces: torch.Tensor
) -> None:
    level = cascade(prior="ancestral").level(1)
    coarse, z = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 8, 8)
    seen = Coarser(coarse, coarse, -3.0, z, torch.zeros_like(z))
    quiet, drawn = (
        run_level(level, faces, seen, "burt", g).prior.mean for g in (None, torch.Generator().manual_seed(0))
    )
    assert torch.equal(quiet, level.prior(Coarser(coarse, coarse, -3.0, z), 4).mean)
    assert not torch.equal(quiet, drawn)


@pytest.mark.parametrize("style", [{}, {"network": "plain"}, {"latent": "vector"}, {"prior": "ancestral"}])
@pytest.mark.parametrize("side", [32, 96, 128, 120, 40, 224])
def test_any_side_that_divides(cascade: Callable[..., Cascade], style: dict[str, str], side: int) -> None:
    model = cascade(side=side, **{"width": 4, **style})
    x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert [p.rebuilt.shape[-1] for p in model.reconstruct(x)] == [side, side // 2, side // 4]
    assert model.sample(1, torch.Generator().manual_seed(0)).images[0].shape == x.shape


def test_the_sum_of_an_open_haar_pyramids_levels_is_a_likelihood_of_the_image(
    cascade: Callable[..., Cascade], faces: torch.Tensor
) -> None:
    """Scales that are one and the same s in orthonormal coordinates must give N(x; x~_1, s^2 I)."""
    model, s = cascade(kind="haar", loop="open"), 0.07
    passes = model.reconstruct(faces)
    log_sigma = [torch.tensor(math.log(s / haar.gain(k))) for k in (1, 2, 3)]
    total = sum(level_nll(model.level(k), passes[k - 1], log_sigma[k - 1]) for k in (1, 2, 3))
    expected = -torch.distributions.Normal(passes[0].rebuilt, s).log_prob(faces).sum((1, 2, 3))
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=0)


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
