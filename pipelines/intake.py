"""A batch from the inbox to the data set: examined, compared with what the champion knows, taken in or set aside."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from lapcvae.config import load
from lapcvae.data import inbox
from lapcvae.data.inbox import Batch
from lapcvae.data.sources import SourceConfig
from lapcvae.errors import PipelineError
from lapcvae.evaluation import drift
from lapcvae.evaluation.drift import Drift, DriftConfig
from lapcvae.models.storage import load_cascade
from lapcvae.pyramid.stored import read_pyramid
from lapcvae.registry import models, promotion, reference, tracking
from pipelines import contest, dvc_runner, journal, remote
from pipelines.outcome import Outcome, RetrainConfig, RunStage, Say

DATA_STAGES = ("source", "download", "landmarks", "align", "validate")
BREACH = Path("reports/validation.breach.json")  # what `validate` leaves where the data set breaks its limits
_PARAMS = Path("params.yaml")
_USERS_MISTAKE = 2


def examine(config: RetrainConfig, outcome: Outcome, tell: Say, reachable: bool) -> Batch | None:
    """The batch in the inbox, examined and found good; None where there is none, or it was set aside."""
    batch = inbox.collect_batch(config.intake)
    if batch is None:
        return None
    batch = inbox.examine(batch, config.intake, load(SourceConfig, "source"), _PARAMS, contest.MANIFEST)
    counts = batch.counts or {"photographs": 0, "accepted": 0, "rejected": {}}
    tell(
        f"batch {batch.number}: {counts['photographs']} files, {counts['accepted']} accepted, {batch.new} of them new, "
        f"{sum(counts['rejected'].values())} rejected"
    )
    reason = batch.reason
    if not reason:
        journal.enter("drift")
        outcome.drift = _drift(batch, config.drift, reachable)
        if outcome.drift is not None:
            far = outcome.drift.columns[0]
            tell(
                f"drift: {outcome.drift.verdict}; furthest {far.column}, PSI {far.psi:.2f}, KS {far.ks:.2f}, mean "
                f"{far.reference_mean:.4g} before, {far.batch_mean:.4g} in the batch"
            )
            if outcome.drift.verdict == "veto":
                reason = (
                    f"too far from the champion's training data: {far.column} drifted by {outcome.drift.worst:.2f} "
                    f"({config.drift.measure}), at most {config.drift.veto:g} is let in"
                )
    if reason:
        _set_aside(batch, reason, outcome, tell)
        return None
    return batch


def _drift(batch: Batch, config: DriftConfig, reachable: bool) -> Drift | None:
    """Of the batch from the champion's training data; from today's, by image statistics, where that is out of reach."""
    images = np.load(batch.examined / "aligned" / "images.npy", mmap_mode="r", allow_pickle=False)
    old, model = None, None
    if reachable:
        name = tracking.read_config().model
        champion = promotion.standing(name).champion
        if champion is not None:
            old = reference.fetch(name, champion)
            with tempfile.TemporaryDirectory() as scratch:
                model = load_cascade(models.fetch(name, str(champion), Path(scratch)))
            if model.level(1).side != images.shape[1]:
                old, model = None, None
    if old is None:
        if not (contest.PYRAMID / "pyramid.json").exists():
            return None
        _, rows = read_pyramid(contest.PYRAMID)
        packed = np.load(contest.PYRAMID / "x1.npy", mmap_mode="r", allow_pickle=False)
        if packed.shape[1:] != images.shape[1:]:
            return None
        old = drift.describe(packed[drift.thin(rows["train"], 0)], model)
    return drift.compare(old, drift.describe(np.asarray(images), model), config)


def take(
    batch: Batch, config: RetrainConfig, outcome: Outcome, run_stage: RunStage, deadline: float, tell: Say
) -> Batch | None:
    """Take the batch in, and see whether the data set as a whole still passes; else set it aside again.

    Where the data stages fail otherwise (a full disk, a limit of the whole source), the data set is what it was before
    and the batch waits for the next run. Raises what the stages raise.
    """
    limit = load(SourceConfig, "source").max_file_bytes
    tar = inbox.take_in(batch, limit)
    dvc_runner.add(tar, tell)
    BREACH.unlink(missing_ok=True)
    try:
        for stage in DATA_STAGES:
            run_stage(stage, deadline)
    except PipelineError as error:
        if error.exit_code != _USERS_MISTAKE:
            raise
        breaks_limits = BREACH.exists()
        dvc_runner.forget(tar, tell)
        away = tar.rename(batch.folder / tar.name)
        try:
            for stage in DATA_STAGES:  # from DVC's cache
                run_stage(stage, deadline)
        except PipelineError:
            raise error from None  # it fails without the batch too: not the batch's fault, it is tried again
        finally:
            away.unlink()
        if not breaks_limits:
            raise
        _set_aside(batch, f"with it the data set breaks its limits: {error}", outcome, tell)
        return None
    notes = {"drift": outcome.drift.as_dict() if outcome.drift else None, "tar": tar.name}
    inbox.finish(batch, limit, notes)
    remote.mark()
    outcome.batch = {"number": batch.number, "status": "taken", "reason": "", "new": batch.new, "account": batch.counts}
    tell(f"batch {batch.number}: taken in, {tar}")
    return batch


def _set_aside(batch: Batch, reason: str, outcome: Outcome, tell: Say) -> None:
    if tar := batch.tar:  # left by a run that was stopped
        dvc_runner.forget(tar, tell)
    place = inbox.set_aside(batch, reason, {"drift": outcome.drift.as_dict() if outcome.drift else None})
    outcome.batch = {
        "number": batch.number, "status": "set aside", "reason": reason, "new": batch.new, "account": batch.counts
    }  # fmt: skip
    tell(f"batch {batch.number}: set aside whole in {place}: {reason}")
