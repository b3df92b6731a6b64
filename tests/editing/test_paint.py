import pytest
import torch

from lapcvae.editing.blend import blend, changed
from lapcvae.editing.paint import Mode, coarse_level, edit, fit, region
from lapcvae.editing.pictures import enlarged
from lapcvae.errors import ConfigError
from lapcvae.models.cascade import Cascade
from lapcvae.pyramid.filters import expand


@pytest.mark.parametrize("side", [64, 128, 48])
def test_a_full_mask_takes_all_and_an_empty_one_nothing(side: int) -> None:
    a, b = torch.rand(2, 2, 3, side, side, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(1, 1, side, side)
    torch.testing.assert_close(blend(a, b, ones), a, atol=1e-5, rtol=0)
    torch.testing.assert_close(blend(a, b, 0 * ones), b, atol=1e-5, rtol=0)


def test_a_seam_is_feathered_wider_in_coarse_bands() -> None:
    """Between two flat pictures nothing steps; far from the seam each is itself."""
    white, black = torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    row = blend(white, black, mask)[0, 0, 32]
    assert float((row[1:] - row[:-1]).abs().max()) < 0.2
    assert float(row[:16].min()) > 0.95
    assert float(row[48:].max()) < 0.05
    # Fine texture of one side does not leak far into the other.
    texture = torch.zeros(1, 3, 64, 64)
    texture[..., ::2] = 0.2
    leaked = (blend(white * 0.5 + texture, white * 0.5, mask) - blend(white * 0.5 + 0.1, white * 0.5, mask))[0, 0, 32]
    assert float(leaked[40:].abs().max()) < 0.01
    assert float(leaked[:24].abs().max()) > 0.09


def test_the_mask_is_what_was_painted() -> None:
    before = torch.full((1, 3, 16, 16), 0.5)
    painted = before.clone()
    painted[:, 1, 4:6, 8:10] = 0.9
    mask = changed(painted, before, 64)
    assert mask.shape == (1, 1, 64, 64)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert float(mask[..., 12:28, 28:44].min()) == 1  # the four pixels and one around them
    assert float(mask.sum()) == 16 * 16
    assert float(changed(before + 1 / 255, before, 64).sum()) == 0


@pytest.mark.parametrize("mode", ["project", "direct"])
@pytest.mark.parametrize("k", [2, 3])
def test_far_from_the_paint_the_reconstruction_stays(model: Cascade, faces: torch.Tensor, mode: Mode, k: int) -> None:
    face = faces[:1]
    painted = coarse_level(model, face, k).clamp(0, 1).clone()
    side = painted.shape[-1]
    painted[..., : side // 4, : side // 4] = torch.tensor([0.9, 0.1, 0.1]).view(1, 3, 1, 1)
    done = edit(model, face, painted, k, 3, 0, mode)
    change = (done.faces - model.reconstruct(face)[0].rebuilt).abs()
    assert float(change[..., 48:, 48:].max()) < 2e-3
    assert float(change[..., :12, :12].mean()) > (3e-3 if mode == "project" else 2e-2)
    assert not torch.equal(done.faces[0], done.faces[1])
    again = edit(model, face, painted, k, 3, 0, mode)
    assert torch.equal(done.faces, again.faces)
    assert not torch.equal(done.faces, edit(model, face, painted, k, 3, 1, mode).faces)


def test_direct_goes_on_from_what_was_painted(model: Cascade, faces: torch.Tensor) -> None:
    painted = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    done = edit(model, faces[:1], painted, 3, 2, 0, "direct")
    assert torch.equal(done.coarse, painted)
    for level in (model.level(1), model.level(2)):
        for parameter in level.renderer.smooth.parameters():  # type: ignore[union-attr]
            torch.nn.init.zeros_(parameter)
    still = edit(model, faces[:1], painted, 3, 2, 0, "direct")
    torch.testing.assert_close(still.drawn, expand(expand(painted)).expand(2, -1, -1, -1), atol=1e-5, rtol=0)


def test_project_says_it_in_the_models_terms(model: Cascade, faces: torch.Tensor) -> None:
    # An untouched level is the model's own already: nothing is painted, so nothing changes.
    coarse = coarse_level(model, faces[:1], 2)
    untouched = edit(model, faces[:1], (coarse.clamp(0, 1) * 255).round() / 255, 2, 2, 0, "project")
    rebuilt = model.reconstruct(faces[:1])[0].rebuilt
    assert float(untouched.mask.sum()) == 0
    torch.testing.assert_close(untouched.faces, rebuilt.expand(2, -1, -1, -1), atol=1e-5, rtol=0)
    # What is gone on from is what levels k ... K rebuild of the painted level, seen as a photograph of that size.
    painted = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    alone = Cascade([model.level(2), model.level(3)]).reconstruct(painted)[0].rebuilt
    torch.testing.assert_close(edit(model, faces[:1], painted, 2, 1, 0, "project").coarse, alone)


def test_a_mask_of_ones_keeps_all_that_was_drawn(model: Cascade, faces: torch.Tensor) -> None:
    painted = coarse_level(model, faces[:1], 3)
    done = edit(model, faces[:1], painted, 3, 2, 0, "direct", mask=torch.ones(1, 1, 64, 64))
    torch.testing.assert_close(done.faces, done.drawn, atol=1e-5, rtol=0)


def test_an_enlarged_level_comes_back_as_it_was() -> None:
    level = torch.rand(1, 3, 16, 16)
    large = enlarged(level)
    assert large.shape[-1] == 256
    torch.testing.assert_close(fit(large, 16), level)


def test_what_does_not_fit_is_refused(model: Cascade, faces: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="8 x 8 pixels"):
        edit(model, faces[:1], torch.zeros(1, 3, 8, 8), 3, 1, 0)
    with pytest.raises(ConfigError, match="32 x 16 pixels"):
        edit(model, faces[:1], torch.zeros(1, 3, 16, 32), 3, 1, 0)
    for k in (1, 4):
        with pytest.raises(ConfigError, match=f"no level {k}.*levels 2"):
            edit(model, faces[:1], torch.zeros(1, 3, 64, 64), k, 1, 0)
    with pytest.raises(ConfigError, match="must be square"):
        region(torch.zeros(1, 3, 10, 20), 64)
    assert torch.equal(region(torch.ones(1, 3, 128, 128), 64), torch.ones(1, 1, 64, 64))
