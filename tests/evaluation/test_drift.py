from pathlib import Path

import cv2
import numpy as np
import pytest

from lapcvae.evaluation.drift import (
    DriftConfig,
    compare,
    describe,
    kolmogorov_smirnov,
    load_reference,
    psi,
    save_reference,
)

CONFIG = DriftConfig("psi", notice=0.5, veto=2.0, min_photographs=20)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """Real photographs, cropped to the face and made small."""
    import tarfile

    found = []
    with tarfile.open(Path(__file__).parents[2] / "data/samples/lfw-sample.tgz") as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None and len(found) < 400:
                image = cv2.imdecode(np.frombuffer(stream.read(), np.uint8), cv2.IMREAD_COLOR)[69:181, 69:181, ::-1]
                found.append(cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA))
    return np.stack(found)


def test_more_of_the_same_people_is_no_drift(faces: np.ndarray) -> None:
    found = compare(describe(faces[:300], None), describe(faces[300:], None), CONFIG)
    assert found.verdict == "none"
    assert found.photographs == 100


def test_dark_photographs_are_vetoed_and_brightness_is_named(faces: np.ndarray) -> None:
    found = compare(describe(faces[:300], None), describe(faces[300:] // 4, None), CONFIG)
    assert found.verdict == "veto"
    assert {c.column for c in found.columns[:5]} & {"brightness", "red", "green", "blue", "contrast"}
    assert found.columns[0].batch_mean < found.columns[0].reference_mean


def test_a_slight_shift_is_noticed_only(faces: np.ndarray) -> None:
    shifted = np.clip(faces[300:].astype(int) + 28, 0, 255).astype(np.uint8)
    assert compare(describe(faces[:300], None), describe(shifted, None), CONFIG).verdict == "notice"


def test_of_few_photographs_nothing_is_concluded(faces: np.ndarray) -> None:
    assert compare(describe(faces[:300], None), describe(faces[300:319] // 4, None), CONFIG).verdict == "unknown"


def test_features_of_a_model_are_compared_too(faces: np.ndarray) -> None:
    from lapcvae.models.cascade import Cascade
    from lapcvae.models.level import LevelCVAE, LevelScale
    from lapcvae.models.settings import ModelSettings

    settings = ModelSettings(width=8, latent="vector", latent_size=6)
    model = Cascade([LevelCVAE(settings, 32, True, LevelScale((0.5,) * 3, 0.25, (0.5,) * 3, 0.25))]).eval()
    old, new = describe(faces[:300], model), describe(faces[300:, ::-1], model)  # upside down
    assert old["features"].shape == (300, 6)
    columns = {c.column: c for c in compare(old, new, CONFIG).columns}
    assert max(c.ks for name, c in columns.items() if name.startswith("feature_")) > columns["brightness"].ks


def test_a_reference_comes_back_as_it_was_kept(faces: np.ndarray, tmp_path: Path) -> None:
    columns = describe(faces[:50], None)
    save_reference(columns, tmp_path / "reference.npz")
    back = load_reference(tmp_path / "reference.npz")
    assert back.keys() == columns.keys()
    np.testing.assert_allclose(back["brightness"], columns["brightness"], rtol=1e-5)


@pytest.mark.parametrize("count", [30, 100, 1000])
def test_chance_alone_gives_a_stability_index_about_zero(count: int) -> None:
    random = np.random.default_rng(0)
    values = [psi(random.normal(size=800), random.normal(size=count)) for _ in range(200)]
    assert np.mean(values) < 0.08
    assert np.quantile(values, 0.99) < 0.5


def test_stability_index_of_a_known_shift() -> None:
    # PSI is the symmetric Kullback-Leibler divergence: for N(0, 1) and N(1, 1) it is 1, a little less in ten bins.
    random = np.random.default_rng(1)
    assert psi(random.normal(size=100_000), random.normal(1, 1, 100_000)) == pytest.approx(0.95, abs=0.07)


def test_kolmogorov_smirnov_agrees_with_scipy() -> None:
    from scipy.stats import ks_2samp

    random = np.random.default_rng(2)
    for shift in (0.0, 0.2, 1.0):
        first, second = random.normal(size=400), random.normal(shift, 1, 150)
        distance, p_value = kolmogorov_smirnov(first, second)
        wanted = ks_2samp(first, second, method="asymp")
        assert distance == pytest.approx(wanted.statistic)
        assert p_value == pytest.approx(wanted.pvalue, abs=0.03)
