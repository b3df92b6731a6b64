import pytest

from lapcvae.errors import ConfigError
from lapcvae.models.settings import PRESETS, resolve


def test_own_keys_beat_shared_ones_which_beat_the_preset() -> None:
    settings = resolve({"preset": "paper", "width": 8, "latent_size": 5}, {"latent_size": 6}, "levels.1.model")
    assert (settings.network, settings.loop, settings.width, settings.latent_size) == ("plain", "open", 8, 6)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_are_whole_settings(preset: str) -> None:
    assert resolve({"preset": preset}, {}, "levels.1.model").latents() > 0


def test_an_unknown_key_is_named_where_it_stands() -> None:
    with pytest.raises(ConfigError, match=r"levels\.2\.model\.widht.*did you mean `width`"):
        resolve({}, {"widht": 3}, "levels.2.model")
    with pytest.raises(ConfigError, match=r"model\.blocs.*did you mean `blocks`"):
        resolve({"blocs": 3}, {}, "levels.2.model")
    with pytest.raises(ConfigError, match="choose one of modern, paper"):
        resolve({"preset": "newest"}, {}, "levels.2.model")
    with pytest.raises(ConfigError, match="`width` must be at least 1"):
        resolve({}, {"width": 0}, "levels.2.model")


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"sigma": "fixed"}, "`sigma_255` above 0 and `sigma: fixed` go together"),
        ({"sigma_255": 3.0}, "`sigma_255` above 0 and `sigma: fixed` go together"),
        ({"condition": "noisy_true"}, "`true_noise` above 0 and `condition: noisy_true` go together"),
        ({"condition": "true", "condition_noise": 0.5}, "`condition_noise` goes with `condition: rebuilt`"),
        ({"prior": "hyper"}, "choose one of 'decoder_stats', 'latent', 'ancestral', 'standard'"),
        ({"likelihood": "cauchy"}, "choose one of 'gaussian', 'laplace', 'pixelcnn'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(own: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve({}, own, "levels.2.model")
