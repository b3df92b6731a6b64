import pytest
import torch

from lapcvae.models.cascade import Cascade
from lapcvae.models.level import LevelCVAE
from lapcvae.models.pixelcnn import MIXTURES, PixelCNN, _mixture
from lapcvae.models.scale import scale_of
from lapcvae.models.settings import ModelSettings
from tests.models.conftest import STATISTICS


@pytest.fixture
def network() -> PixelCNN:
    torch.manual_seed(0)
    network = PixelCNN(16)
    torch.nn.init.normal_(network.out.weight, std=0.1)
    return network.eval()


def test_a_pixel_sees_all_before_it_and_nothing_else(network: PixelCNN) -> None:
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    seen = network.read(torch.zeros(1, 3, 8, 8))
    i, j = 5, 3
    network._mixture_at(pixels, seen)[..., i, j].sum().backward()
    assert pixels.grad is not None
    reached = pixels.grad.abs().sum((0, 1)) > 0
    order = torch.arange(64).view(8, 8)
    assert not reached[order >= order[i, j]].any()
    # No blind spot: within two columns and rows of reach, all that came before, also above and to the right.
    assert reached[3:5].all()
    assert reached[5, :3].all()


def test_the_values_probabilities_sum_to_one(network: PixelCNN) -> None:
    """Of one pixel: the mean over uniformly drawn colours, times how many there are."""
    n = 200_000
    x = torch.randint(256, (n, 3, 1, 1), generator=torch.Generator().manual_seed(1)) / 255
    with torch.no_grad():
        probability = (-network.nll(x, torch.full((1, 3, 1, 1), 0.4).expand(n, -1, -1, -1))).exp().double()
    error = float(probability.std()) * 256**3 / n**0.5
    assert float(probability.mean()) * 256**3 == pytest.approx(1, abs=5 * error)
    assert error < 0.02


def test_samples_are_what_the_density_says_of_their_own_past(network: PixelCNN) -> None:
    """Every value is its noise put through the distribution function that the finished image gives for its place."""
    generator = torch.Generator().manual_seed(2)
    mean = torch.rand(3, 3, 6, 6, generator=generator)
    noise = torch.rand(3, 6, 6, MIXTURES + 3, generator=generator)
    drawn = network.sample(mean, noise)
    torch.testing.assert_close(drawn * 255, (drawn * 255).round())
    pixels = drawn * 2 - 1
    with torch.no_grad():
        logits, centres, log_scales = _mixture(network._mixture_at(pixels, network.read(mean * 2 - 1)), pixels)
    gumbel = -(-noise[..., :MIXTURES].permute(0, 3, 1, 2).log()).log()
    which = (logits + gumbel).argmax(1, keepdim=True)[:, :, None].expand(-1, -1, 3, -1, -1)
    centre, scale = (t.gather(1, which)[:, 0] for t in (centres, log_scales.exp()))
    expected = (centre + scale * torch.logit(noise[..., MIXTURES:].permute(0, 3, 1, 2))).clamp(-1, 1)
    assert (pixels - expected).abs().max() <= 1 / 255 + 1e-5


def test_the_coarsest_level_is_drawn_by_it_and_rebuilt_without_it() -> None:
    torch.manual_seed(0)
    fine = LevelCVAE(ModelSettings(width=16), 32, False, scale_of(STATISTICS, 1, 3))
    coarse = LevelCVAE(ModelSettings(width=16, likelihood="pixelcnn"), 16, True, scale_of(STATISTICS, 3, 3))
    model = Cascade([fine, coarse]).eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    passes = model.reconstruct(x)
    torch.testing.assert_close(passes[1].rebuilt, passes[1].mean)
    one, two, other = (model.sample(2, torch.Generator().manual_seed(seed)) for seed in (4, 4, 5))
    assert torch.equal(one.images[0], two.images[0])
    assert not torch.equal(one.images[1], other.images[1])
    torch.testing.assert_close(one.images[1] * 255, (one.images[1] * 255).round())
    kept = model.sample(2, torch.Generator().manual_seed(4), keep={2: passes[1].z})
    torch.testing.assert_close(kept.images[1], passes[1].rebuilt)


def test_finer_levels_refuse_it() -> None:
    with pytest.raises(ValueError, match="for the coarsest level"):
        LevelCVAE(ModelSettings(width=16, likelihood="pixelcnn"), 32, False, scale_of(STATISTICS, 1, 3))
