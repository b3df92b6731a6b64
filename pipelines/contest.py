"""Challenger against champion: both measured on the frozen test set, the verdict, and what follows from it.

The challenger is the version with the alias `current`: what the last pipeline run made.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from lapcvae.config import load
from lapcvae.data.batches import PackedImages
from lapcvae.errors import DataError
from lapcvae.evaluation import drift, networks, sheets, trial
from lapcvae.evaluation.evaluate import EvaluationConfig
from lapcvae.evaluation.frozen import FROZEN, FrozenTest, freeze, read_frozen
from lapcvae.models.cascade import Cascade
from lapcvae.models.storage import load_cascade
from lapcvae.pyramid.stored import read_pyramid
from lapcvae.registry import card, gate, history, models, promotion, reference, tracking
from lapcvae.registry.gate import GateConfig, Verdict

FACES = "faces"  # the picture of every gate in MLflow: under one name, several can be seen side by side
MANIFEST, PYRAMID, MODELS = Path("data/aligned/manifest.csv"), Path("data/pyramid"), Path("models")


@dataclass(frozen=True)
class Contest:
    """What came of a gate. `champion`: the version that was champion before it; `now`: the one that is after it."""

    verdict: Verdict
    challenger: int
    champion: int | None
    now: int | None
    card: str
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


def level_folders() -> list[Path]:
    """The pyramid's level folders in models/, finest first."""
    found = [path for path in MODELS.glob("level*") if path.name.removeprefix("level").isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("level")))


def is_due(name: str) -> bool:
    """Whether the current version still has to stand before the gate."""
    now = promotion.standing(name)
    if now.current is None or now.current == now.champion:
        return now.current is not None and promotion.VERDICT not in promotion.tags_of(name, now.current)
    tags = promotion.tags_of(name, now.current)
    if tags.get(promotion.ROLLED_BACK) == "true":
        return False
    if tags.get(promotion.MOVE) == "due":  # promoted by a run that was killed before it moved the alias
        return True
    return tags.get("gate_against") != str(now.champion or "none")


def hold(extra: list[Path] | None = None) -> Contest:
    """Measure, decide, promote or reject, and put it on record. Safe to repeat after an interruption.

    extra: files to keep beside the gate's numbers, such as the record of the batch. Raises `RegistryError` where MLflow
    is away, `DataError` where the frozen test set is not what it was.
    """
    tracked, config, seed = tracking.read_config(), load(GateConfig, "gate"), load(int, "seed")
    now = promotion.standing(tracked.model)
    assert now.current is not None
    test = _test_set(tracked.model)
    against = now.champion if now.champion != now.current else None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    photographs = PackedImages(PYRAMID / "x1.npy", device)
    stored, rows = read_pyramid(PYRAMID)
    with tempfile.TemporaryDirectory() as scratch:
        folders = models.fetch(tracked.model, str(now.current), Path(scratch, "new"))
        contenders: dict[str, Cascade] = {"challenger": load_cascade(folders)}
        if against is not None:
            contenders["champion"] = load_cascade(models.fetch(tracked.model, str(against), Path(scratch, "old")))
    for model in contenders.values():
        model.to(device)
    batch = load(EvaluationConfig, "evaluation").batch
    network = networks.open_network(device)
    trials = {
        name: trial.measure(model, photographs, test.rows, rows["val"], batch, seed, network)
        for name, model in contenders.items()
    }
    latencies = trial.latency_s(contenders, photographs, test.rows)
    trials = {name: replace(t, scalars=t.scalars | {"latency_s": latencies[name]}) for name, t in trials.items()}
    if against is None:
        verdict = gate.first(trials["challenger"], config)
    else:
        verdict = gate.decide(trials["champion"], trials["challenger"], test.groups, config, seed)
    counts = {"test": len(test.rows), "people": len(set(test.groups)), "train": stored.photographs["train"]}
    text = card.card(
        tracked.model, now.current, against, verdict, promotion.tags_of(tracked.model, now.current), counts
    )
    pair = dict(sorted(contenders.items(), key=lambda item: item[0] == "challenger"))  # the champion first
    pictures = {"photograph_then_" + "_then_".join(pair): sheets.comparison(pair, photographs, test.rows)}
    _record(verdict, now.current, against, trials, test, text, pictures, stored.data_digest, extra or [])
    columns = drift.describe(
        np.load(PYRAMID / "x1.npy", mmap_mode="r")[drift.thin(rows["train"], seed)], contenders["challenger"]
    )
    reference.keep(tracked.model, now.current, columns)
    moves = verdict.decision == "promoted" and now.champion != now.current
    # With these tags the gate is done, and until then it is held again. They come before the move: once the challenger
    # is champion, there is no telling any more which numbers made it so.
    promotion.note_verdict(
        tracked.model,
        now.current,
        {
            promotion.VERDICT: verdict.decision,
            "gate_reason": verdict.reason,
            "gate_against": str((against if verdict.decision == "promoted" else now.champion) or "none"),
            "frozen_test": test.digest,
            promotion.MOVE: "due" if moves else "none",
            **{f"gate.{name}": f"{value:.6g}" for name, value in trials["challenger"].means().items()},
        },
        text,
    )
    if moves:
        promotion.promote(tracked.model, now.current, verdict.reason, now)
        promotion.note_verdict(tracked.model, now.current, {promotion.MOVE: "done"}, text)
    after = promotion.standing(tracked.model).champion
    return Contest(verdict, now.current, against, after, text, pictures)


def _test_set(name: str) -> FrozenTest:
    """The frozen test set; frozen now where this model never had one. The registry holds its digest."""
    agreed = promotion.frozen_test(name)
    if not agreed and not FROZEN.exists():
        freeze(MANIFEST)
    test = read_frozen(MANIFEST)
    if agreed and agreed != test.digest:
        raise DataError(
            f"{FROZEN}: not the test set that {name}'s versions were measured on (SHA-256 {agreed}); bring it back "
            "from git, or from the artifacts of a gate's run in MLflow"
        )
    if not agreed:
        promotion.agree_on_test(name, test.digest)
    return test


def _record(
    verdict: Verdict,
    challenger: int,
    champion: int | None,
    trials: dict[str, trial.Trial],
    test: FrozenTest,
    text: str,
    pictures: dict[str, np.ndarray],
    data_digest: str,
    extra: list[Path],
) -> None:
    """A run of kind `gate` under the pipeline's, and a point on the curves of champions over time."""
    tracked = tracking.read_config()
    params = {"challenger": challenger, "champion": champion or "none", "frozen_test": test.digest}
    with (
        tracking.child_run(f"gate, version {challenger}", "gate", params, data_digest=data_digest) as run,
        tempfile.TemporaryDirectory() as scratch,
    ):
        run.tag("verdict", verdict.decision)
        run.tag("reason", verdict.reason)
        if verdict.absent:
            run.tag("not_asked", "; ".join(f"{name}: {why}" for name, why in sorted(verdict.absent.items())))
        for name, result in trials.items():
            run.log(challenger, {f"{name}.{measure}": value for measure, value in result.means().items()})
        for name, picture in pictures.items():
            run.picture(FACES, picture)
            run.tag("rows_of_faces", name.replace("_", " "))
        written = {"card.md": text, "frozen_test.csv": FROZEN.read_text(encoding="utf-8")}
        for name, content in written.items():
            Path(scratch, name).write_text(content, encoding="utf-8")
        for path in [*(Path(scratch, name) for name in written), *extra]:
            run.artifact(path, "gate")
    winner = "challenger" if verdict.decision == "promoted" or champion is None else "champion"
    points = {f"challenger.{measure}": value for measure, value in trials["challenger"].means().items()}
    if verdict.decision == "promoted" or champion is not None:
        points |= {f"champion.{measure}": value for measure, value in trials[winner].means().items()}
    history.note(tracked.experiment, challenger, points)
