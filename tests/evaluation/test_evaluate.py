import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lapcvae.data.batches import PackedImages
from lapcvae.errors import DataError
from lapcvae.evaluation import report, sheets, table
from lapcvae.evaluation.evaluate import Evaluation, evaluate
from lapcvae.evaluation.intervals import Against
from lapcvae.models.cascade import Cascade
from lapcvae.models.level import LevelCVAE
from lapcvae.models.scale import scale_of
from lapcvae.models.settings import ModelSettings

STATISTICS = {
    "1": {"mean": [0.5, 0.45, 0.4], "std": [0.2, 0.2, 0.2], "band_std": 0.04},
    "2": {"mean": [0.5, 0.45, 0.4], "std": [0.2, 0.2, 0.2], "band_std": 0.2},
}
TEST, VAL = np.arange(0, 10), np.arange(10, 16)


@pytest.fixture
def photographs(tmp_path: Path) -> PackedImages:
    noise = torch.rand(16, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(noise, size=32, mode="bilinear")
    np.save(tmp_path / "x1.npy", (x * 255).round().byte().permute(0, 2, 3, 1).numpy())
    return PackedImages(tmp_path / "x1.npy", torch.device("cpu"))


@pytest.fixture
def model() -> Cascade:
    torch.manual_seed(0)
    settings = ModelSettings(width=16, latent_size=2, latent_grid=4)
    levels = [LevelCVAE(settings, 32 // k, k == 2, scale_of(STATISTICS, k, 2)) for k in (1, 2)]
    for level in levels:
        torch.nn.init.normal_(level.to_posterior.weight, std=0.05)  # type: ignore[arg-type]
    return Cascade(levels).eval()


@pytest.fixture
def measured(model: Cascade, photographs: PackedImages) -> Evaluation:
    return evaluate(model, photographs, TEST, VAL, batch=4, seed=0)


def test_a_learned_sigma_is_measured_as_any_other(model: Cascade, photographs: PackedImages) -> None:
    """It is a parameter, and has a gradient where the others have none."""
    found = evaluate(model, photographs, TEST, VAL, batch=4, seed=0)
    for k in (1, 2):
        model.level(k).log_sigma.requires_grad_(True)
    assert evaluate(model, photographs, TEST, VAL, batch=4, seed=0).metrics == found.metrics


def test_numbers_agree_with_the_model_run_by_hand(
    model: Cascade, photographs: PackedImages, measured: Evaluation
) -> None:
    x = photographs.gather(TEST, np.zeros_like(TEST))
    passes = model.reconstruct(x)
    error = ((passes[0].rebuilt.clamp(0, 1) - x) * 255).square().mean((1, 2, 3)).sqrt()
    np.testing.assert_allclose(measured.images["rmse_posterior_mean"], error.numpy(), rtol=1e-4)
    m = measured.metrics
    assert m["rmse_posterior_mean"]["mean"] == pytest.approx(float(error.mean()), rel=1e-4)
    assert m["rate_nats"] == pytest.approx(sum(level["rate_nats"] for level in m["levels"].values()))
    dimensions = 3 * 32**2
    bits = (m["distortion_nats"] + m["rate_nats"]) / dimensions / np.log(2)
    assert m["bits_per_dim"]["mean"] == pytest.approx(bits)
    assert m["latents"] == 2 * 2 * 16
    assert 0 < m["active_units"] <= m["latents"]
    # At the finest level, its own size is the full size.
    assert m["levels"]["1"]["rmse_own_size"] == pytest.approx(m["levels"]["1"]["rmse_if_stopped_here"])


def test_the_batch_size_changes_no_posterior_mean(
    model: Cascade, photographs: PackedImages, measured: Evaluation
) -> None:
    other = evaluate(model, photographs, TEST, VAL, batch=7, seed=0)
    np.testing.assert_allclose(other.images["rmse_posterior_mean"], measured.images["rmse_posterior_mean"], rtol=1e-5)


def test_a_model_without_output_has_the_error_of_the_mean_colour(photographs: PackedImages, model: Cascade) -> None:
    worse = evaluate(model, photographs, TEST, VAL, batch=16, seed=0).metrics
    for level in model.levels:  # every level then puts out its target mean
        for parameter in level.renderer.smooth.parameters():  # type: ignore[union-attr]
            torch.nn.init.zeros_(parameter)
    flat = evaluate(model, photographs, TEST, VAL, batch=16, seed=0).metrics
    x = photographs.gather(TEST, np.zeros_like(TEST))
    mean = torch.tensor(STATISTICS["2"]["mean"]).view(1, 3, 1, 1)
    expected = ((x - mean) * 255).square().mean((1, 2, 3)).sqrt().mean()
    assert flat["rmse_posterior_mean"]["mean"] == pytest.approx(float(expected), rel=1e-4)
    assert flat["rmse_posterior_mean"] != worse["rmse_posterior_mean"]


def test_latents_that_are_never_used_are_counted_and_said(photographs: PackedImages, model: Cascade) -> None:
    metrics = evaluate(model, photographs, TEST, VAL, batch=16, seed=0).metrics
    assert table.unused({"lapcvae": _listening(metrics)}) == [
        "No model has a latent that is never used (KL below 0.01 nats on average)."
    ]
    silenced = model.level(2)
    with torch.no_grad():  # the first of two channels of a 4 x 4 map says nothing: mean 0, log std 0
        for parameter in silenced.to_posterior.parameters():
            parameter[0] = parameter[2] = 0
    metrics = evaluate(model, photographs, TEST, VAL, batch=16, seed=0).metrics
    assert (metrics["levels"]["2"]["unused_latents"], metrics["levels"]["1"]["unused_latents"]) == (16, 0)
    said = table.unused({"lapcvae": _listening(metrics)})
    assert said == [
        "lapcvae, level 2: 16 of 32 latents are never used (KL below 0.01 nats on average over the photographs "
        "measured on)."
    ]


def _listening(metrics: dict[str, Any]) -> dict[str, Any]:
    """These metrics, had the decoders learned what latents mean: the model here is not trained."""
    return {**metrics, "levels": {k: {**level, "importance_nats": 9.0} for k, level in metrics["levels"].items()}}


def test_latents_that_the_decoder_does_not_hear_are_said(photographs: PackedImages, model: Cascade) -> None:
    deaf = model.level(1)
    with torch.no_grad():
        for parameter in deaf.from_latent.parameters():
            parameter.zero_()
    metrics = evaluate(model, photographs, TEST, VAL, batch=4, seed=0).metrics  # the last batch is of two photographs
    assert metrics["levels"]["1"]["importance_nats"] == 0
    assert metrics["levels"]["2"]["importance_nats"] != 0
    rate = metrics["levels"]["1"]["rate_nats"]
    assert rate > 1
    assert table.unused({"lapcvae": metrics})[0] == (
        f"lapcvae, level 1: the latents carry {rate:.1f} nats, but tell the decoder nothing: with another "
        "photograph's, distortion changes by +0.000 nats."
    )


def test_of_one_photograph_there_is_no_other_one(photographs: PackedImages, model: Cascade) -> None:
    metrics = evaluate(model, photographs, TEST[:1], VAL, batch=4, seed=0).metrics
    assert "importance_nats" not in metrics["levels"]["1"]
    assert not any("tell the decoder nothing" in sentence for sentence in table.unused({"lapcvae": metrics}))


def test_nothing_to_measure_on(model: Cascade, photographs: PackedImages) -> None:
    with pytest.raises(DataError, match="test split"):
        evaluate(model, photographs, np.array([], dtype=int), VAL, 4, 0)


def test_the_report_is_one_page_that_needs_no_network(
    model: Cascade, photographs: PackedImages, measured: Evaluation
) -> None:
    training = {"updates": 30, "images_seen": 240, "seconds": 1.0, "peak_memory_bytes": 1}
    drawn = {"n": 10, "sharpness_ratio": 0.5, "band_energy_ratio": {"px32": 0.2, "px16": 0.7}}
    distance = {"value": 1.5, "ci95_low": 1.2, "ci95_high": 1.8}
    metrics = {
        name: {
            **measured.metrics,
            "training": training,
            "samples": drawn,
            "kd_net": {"n": 10, "floor": 0.01, "reconstructions": distance, "samples": distance},
            "nearest_training": {
                "samples_median": 30.0,
                "reconstructions_median": 40.0,
                "held_out_median": 41.0,
                "repeated_share": 0.02,
            },
        }
        for name in ("lapcvae", "vae")
    }
    columns = measured.images
    metrics["lapcvae"]["against"] = {"vae": Against(columns, columns, TEST.astype(str)).differences()}
    curve = [
        {"images_seen": 100.0 * i, "loss_nats": 9.0 / i, "val_loss_nats": 10.0 / i, "rate_nats": float(i)}
        for i in range(1, 6)
    ]
    pictures = {
        "comparison": sheets.comparison({"lapcvae": model, "vae": model}, photographs, TEST),
        "coarse_to_fine": sheets.coarse_to_fine(model, photographs, TEST),
        "samples": sheets.samples(model, 12, 1.0, 0),
        "samples_cool": sheets.samples(model, 12, 0.7, 0),
    }
    pictures |= dict.fromkeys(("nearest", "partial", "edited", "interpolated"), pictures["samples"])
    data = {
        "photographs": {"train": 5, "val": 6, "test": 10},
        "summary": {"photographs": 23, "accepted": 21, "rejected": {"no_face": 2}},
    }
    settings = {"text": "a: <b>", "finer_temperature": 0.5, "notes": ["<network> is absent"]}
    page = report.render(metrics, {"level1": curve, "level2": curve}, pictures, data, settings)
    links = re.findall(r"""<a href="([^"]+)">""", page)
    assert links == ["account.html", "data_docs/index.html"]  # its neighbours, opened only when asked for
    loads = r"""(?:src|(?<!<a )href)\s*=\s*["'](?!data:|#)([^"']+)|url\((?!["']?[#d])|<script|@import"""
    fetched = re.findall(loads, page)
    assert fetched == []
    assert page.count("data:image/png;base64,") == 8
    for text in (
        "against vae",
        "kd_net, n = 10",
        "1.5 (1.2 to 1.8)",
        "&lt;network&gt; is absent",
        "samples, 32 px",
        "tell the decoder nothing",
    ):
        assert text in page, text
    assert "rejected: no_face" in page
    assert "a: &lt;b&gt;" in page
    assert page == report.render(metrics, {"level1": curve, "level2": curve}, pictures, data, settings)
    assert pictures["comparison"].shape == (3 * 98 + 2, 10 * 98 + 2, 3)
    lines = table.text(metrics).splitlines()
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1
