"""What partial sampling must keep, and what one seed stands for."""

from collections.abc import Callable

import pytest
import torch

from lapcvae.models.cascade import Cascade, latents


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("first", [2, 3])
def test_kept_levels_are_those_of_the_photograph_and_finer_ones_are_drawn(
    cascade: Callable[..., Cascade], faces: torch.Tensor, first: int
) -> None:
    model = cascade()
    passes = model.reconstruct(faces)
    kept = {k: z for k, z in latents(passes).items() if k >= first}
    one, two = (model.sample(len(faces), seeded(seed), keep=kept) for seed in (1, 2))
    for k in range(first, 4):
        torch.testing.assert_close(one.images[k - 1], passes[k - 1].rebuilt, atol=1e-6, rtol=0)
        assert torch.equal(one.latents[k], two.latents[k])
    for k in range(1, first):
        assert not torch.equal(one.latents[k], two.latents[k])
        assert not torch.equal(one.images[k - 1], two.images[k - 1])


def test_all_levels_kept_is_the_reconstruction(cascade: Callable[..., Cascade], faces: torch.Tensor) -> None:
    model = cascade()
    passes = model.reconstruct(faces, seeded(3))
    drawn = model.sample(len(faces), seeded(1), keep=latents(passes))
    torch.testing.assert_close(drawn.images[0], passes[0].rebuilt, atol=1e-6, rtol=0)


def test_keeping_a_level_leaves_the_noise_of_the_others(cascade: Callable[..., Cascade]) -> None:
    model = cascade()
    whole = model.sample(3, seeded(4))
    again = model.sample(3, seeded(4), keep={3: whole.latents[3]})
    for a, b in zip(whole.images, again.images, strict=True):
        assert torch.equal(a, b)


def test_one_latent_is_kept_for_all(cascade: Callable[..., Cascade]) -> None:
    model = cascade()
    face = model.sample(1, seeded(5)).latents[3]
    drawn = model.sample(3, seeded(6), keep={3: face})
    assert torch.equal(drawn.latents[3], face.expand(3, -1, -1, -1))
    assert not torch.equal(drawn.images[0][0], drawn.images[0][1])


def test_more_faces_begin_with_the_same_ones(cascade: Callable[..., Cascade]) -> None:
    model = cascade()
    few, many = (model.sample(n, seeded(7)).latents for n in (2, 5))
    for k in (1, 2, 3):
        torch.testing.assert_close(few[k], many[k][:2])


def test_one_generator_goes_on_to_other_faces(cascade: Callable[..., Cascade]) -> None:
    model, generator = cascade(), seeded(8)
    assert not torch.equal(model.sample(2, generator).images[0], model.sample(2, generator).images[0])


def test_temperature_zero_draws_one_face(cascade: Callable[..., Cascade]) -> None:
    drawn = cascade().sample(2, seeded(9), temperature=0.0).images[0]
    torch.testing.assert_close(drawn[0], drawn[1])


def test_latents_that_do_not_fit_are_refused(cascade: Callable[..., Cascade]) -> None:
    model = cascade()
    with pytest.raises(ValueError, match="no level 4: the levels are 1 to 3"):
        model.sample(2, seeded(0), keep={4: torch.zeros(2, 3, 8, 8)})
    with pytest.raises(ValueError, match=r"keep\[3\] is \(2, 5\)"):
        model.sample(2, seeded(0), keep={3: torch.zeros(2, 5)})
    with pytest.raises(ValueError, match=r"paint\[2\]"):
        model.sample(2, seeded(0), paint={2: torch.zeros(2, 3, 64, 64)})


@pytest.mark.parametrize("painted", [2, 3])
def test_finer_levels_go_on_from_what_was_painted(cascade: Callable[..., Cascade], painted: int) -> None:
    model = cascade()
    side = 64 // 2 ** (painted - 1)
    picture = torch.rand(1, 3, side, side, generator=seeded(1))
    plain, drawn = model.sample(2, seeded(2)), model.sample(2, seeded(2), paint={painted: picture})
    assert torch.equal(drawn.images[painted - 1], picture.expand(2, -1, -1, -1))
    for k in range(1, painted):
        assert not torch.equal(plain.images[k - 1], drawn.images[k - 1])
    # Painting what was drawn anyway changes nothing.
    same = model.sample(2, seeded(2), paint={painted: plain.images[painted - 1]})
    torch.testing.assert_close(same.images[0], plain.images[0], atol=1e-6, rtol=0)
