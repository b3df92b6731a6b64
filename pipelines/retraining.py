"""One retraining, from the inbox to the alias: what the Prefect flow runs, without Prefect.

    inbox -> examined -> drift -> taken in, or set aside -> DVC's graph -> gate -> champion, or rejected

Every step can be repeated, and looks at what is there first: a run that was killed anywhere is finished by the next.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from lapcvae.config import load, read_params
from lapcvae.data import inbox
from lapcvae.data.inbox import Batch, IntakeConfig
from lapcvae.data.sources import SourceConfig
from lapcvae.data.taken import batches
from lapcvae.errors import PipelineError, RegistryError
from lapcvae.evaluation import drift
from lapcvae.evaluation.drift import Drift, DriftConfig
from lapcvae.io.atomic import atomic_folder, read_json, write_json
from lapcvae.io.process import is_alive, own_name
from lapcvae.models.storage import load_cascade
from lapcvae.pyramid.stored import read_pyramid
from lapcvae.registry import crashed, models, promotion, reference, spool, tracking
from pipelines import contest, dvc_runner, dvc_state
from pipelines.contest import Contest

SCRATCH = Path(".cache/retrain")
PARAMS, RECORD, PICTURES = Path("params.yaml"), Path("reports/retraining.json"), Path("reports/gate")
_USERS_MISTAKE = 2
DATA_STAGES = ("download", "landmarks", "align", "validate")

RunStage = Callable[[str, float], None]
"""Brings one stage up to date before a deadline (of `time.monotonic()`)."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class RetrainConfig:
    """The `retrain` section of params.yaml.

    min_new: photographs taken in since the last training before there is another one. deadline_s: seconds that a
    retraining may take.
    """

    min_new: int
    deadline_s: float
    intake: IntakeConfig
    drift: DriftConfig

    def __post_init__(self) -> None:
        if self.min_new < 1 or self.deadline_s <= 0:
            raise ValueError("`min_new` must be at least 1, `deadline_s` above 0")


@dataclass
class Outcome:
    """What a run did. `status`: `busy` (another run goes on), `nothing`, `waiting` (too few new photographs),
    `postponed` (trained, MLflow away: the gate is held by the next run), `promoted`, `rejected`.
    """

    status: Literal["busy", "nothing", "waiting", "postponed", "promoted", "rejected"] = "nothing"
    lines: list[str] = field(default_factory=list)
    batch: dict[str, Any] | None = None
    drift: Drift | None = None
    contest: Contest | None = None
    ran: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the record; no clock times."""
        found: dict[str, Any] = {"status": self.status, "lines": self.lines, "batch": self.batch, "ran": self.ran}
        found["drift"] = None if self.drift is None else self.drift.as_dict()
        found["gate"] = None if self.contest is None else self.contest.verdict.as_dict()
        if self.contest is not None:
            found |= {"challenger": self.contest.challenger, "champion": self.contest.now}
        return found


@dataclass(frozen=True)
class Held:
    """The one run at a time. `died`: what an earlier run, killed before its end, left in its journal."""

    died: dict[str, Any] | None


@contextmanager
def one_at_a_time(name: str) -> Iterator[Held | None]:
    """Hold the project for this run; None where another holds it. A killed run's hold ends with its process.

    name: of this run, for the journal, such as its Prefect flow run id.
    """
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with (SCRATCH / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        journal = SCRATCH / "run.json"
        died = None
        if journal.exists():
            old: dict[str, Any] = read_json(journal)
            died = old if old["phase"] != "done" and not is_alive(old["process"]) else None
        _enter("start", name)
        try:
            yield Held(died)
        finally:
            _enter("done", name)


def _enter(phase: str, name: str | None = None) -> None:
    """Note in the journal how far this run is."""
    journal = SCRATCH / "run.json"
    name = name if name is not None else read_json(journal)["name"]
    write_json(journal, {"phase": phase, "name": name, "process": own_name()})


def retrain(run_stage: RunStage, say: Say = print) -> Outcome:
    """Do one retraining; the caller holds `one_at_a_time`. Raises what the stages and the gate raise."""
    config = load(RetrainConfig, "retrain")
    deadline = time.monotonic() + config.deadline_s
    outcome = Outcome()

    def tell(line: str) -> None:
        outcome.lines.append(line)
        say(line)

    os.environ[tracking.GATED] = "1"
    _enter("look after")
    reachable = _look_after(tell)
    _enter("intake")
    batch = _intake(config, outcome, tell, reachable)
    if batch is not None:
        _enter("validate")
        batch = _take(batch, config, outcome, run_stage, deadline, tell)
    _enter("train")
    if _is_enough(config, outcome, tell):
        if not dvc_runner.is_up_to_date():
            for stage in dvc_runner.stages():
                _enter(f"stage {stage}")
                try:
                    run_stage(stage, deadline)
                except PipelineError as error:
                    if stage == "register" and "MLflow" in str(error):
                        outcome.status = "postponed"
                        tell("trained; MLflow is away, so registering and the gate are left to the next run")
                        _finish(outcome)
                        return outcome
                    raise
                outcome.ran.append(stage)
        _enter("gate")
        _gate(outcome, tell)
        _note_trained()
    _finish(outcome)
    return outcome


def _look_after(tell: Say) -> bool:
    """Mend what earlier runs and accidents left; whether MLflow can be reached."""
    dvc_state.release_stale_locks(tell)
    for note in dvc_state.set_aside_damaged_notes(tell):
        if (tar := note.with_suffix("")) in batches():
            dvc_runner.add(tar, tell)
    dvc_state.remove_damaged(tell)
    for tar in Path("data/taken").glob("*.tar.dvc"):
        if not tar.with_suffix("").exists():
            dvc_runner.restore(tar.with_suffix(""), tell)
    tracked = tracking.read_config()
    try:
        delivered = spool.deliver()
        if delivered:
            tell(f"MLflow: {delivered} runs that were kept back while it was away are logged now")
        ended = crashed.mark_crashed(tracked.experiment)
        if ended:
            tell(f"MLflow: {len(ended)} runs of killed processes are marked as failed")
        mended = promotion.recover(tracked.model, contest.level_folders())
        if mended:
            tell(f"registry: {mended}")
        return True
    except models.DamagedVersionError:
        raise
    except RegistryError as error:
        tell(f"MLflow is away: {error}")
        return False


def _intake(config: RetrainConfig, outcome: Outcome, tell: Say, reachable: bool) -> Batch | None:
    """The batch in the inbox, examined and found good; None where there is none, or it was set aside."""
    batch = inbox.collect_batch(config.intake)
    if batch is None:
        return None
    batch = inbox.examine(batch, config.intake, load(SourceConfig, "source"), PARAMS, contest.MANIFEST)
    counts = batch.counts or {"photographs": 0, "accepted": 0, "rejected": {}}
    tell(
        f"batch {batch.number}: {counts['photographs']} files, {counts['accepted']} accepted, {batch.new} of them new, "
        f"{sum(counts['rejected'].values())} rejected"
    )
    reason = batch.reason
    if not reason:
        _enter("drift")
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


def _take(
    batch: Batch, config: RetrainConfig, outcome: Outcome, run_stage: RunStage, deadline: float, tell: Say
) -> Batch | None:
    """Take the batch in, and see whether the data set as a whole still passes; else set it aside again."""
    limit = load(SourceConfig, "source").max_file_bytes
    tar = inbox.take_in(batch, limit)
    dvc_runner.add(tar, tell)
    try:
        for stage in DATA_STAGES:
            run_stage(stage, deadline)
    except PipelineError as error:
        if error.exit_code != _USERS_MISTAKE:
            raise
        dvc_runner.forget(tar, tell)
        away = tar.rename(batch.folder / tar.name)
        try:
            for stage in DATA_STAGES:  # from DVC's cache
                run_stage(stage, deadline)
        except PipelineError:
            raise error from None  # it fails without the batch too: not the batch's fault, it is tried again
        finally:
            away.unlink()
        _set_aside(batch, f"with it the data set breaks its limits: {error}", outcome, tell)
        return None
    notes = {"drift": outcome.drift.as_dict() if outcome.drift else None, "tar": tar.name}
    inbox.finish(batch, limit, notes)
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


def _is_enough(config: RetrainConfig, outcome: Outcome, tell: Say) -> bool:
    """Whether to train: unless all that changed is that a few photographs came."""
    waiting = inbox.taken_count() - _trained().get("new", 0)
    if not 0 < waiting < config.min_new or _trained().get("params") != models.params_digest(read_params()):
        return True
    if outcome.drift is not None and outcome.drift.verdict == "notice":
        tell("drift: trained on at once")
        return True
    outcome.status = "waiting"
    tell(f"{waiting} new photographs since the last training; the next is at {config.min_new} (`retrain.min_new`)")
    return False


def _trained() -> dict[str, Any]:
    path = SCRATCH / "trained.json"
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    return found


def _note_trained() -> None:
    write_json(
        SCRATCH / "trained.json",
        {"new": inbox.taken_count(), "params": models.params_digest(read_params()), "batches": len(batches())},
    )


def _gate(outcome: Outcome, tell: Say) -> None:
    name = tracking.read_config().model
    try:
        if not contest.is_due(name):
            now = promotion.standing(name)
            tell(f"nothing new and nothing changed; champion is version {now.champion}")
            return
        new = batches()[_trained().get("batches", 0) :]  # an earlier run, killed since, may have taken them in
        held = contest.hold([inbox.BATCHES / f"{tar.name.partition('-')[0]}.json" for tar in new])
    except models.DamagedVersionError:
        raise
    except RegistryError as error:
        outcome.status = "postponed"
        tell(f"the gate is left to the next run: {error}")
        return
    outcome.contest, outcome.status = held, held.verdict.decision
    decided = f"version {held.challenger} {held.verdict.decision}: {held.verdict.reason}"
    tell(f"gate: {decided}; champion is version {held.now}")
    if dvc_runner.remote():
        dvc_runner.push_or_pull("push", tell)


def _finish(outcome: Outcome) -> None:
    """Leave the record of this run, and add it to the list of all."""
    _enter("record")
    with atomic_folder(PICTURES) as folder:
        for name, picture in (outcome.contest.pictures if outcome.contest else {}).items():
            Image.fromarray(picture).save(folder / f"{name}.png")
    write_json(RECORD, outcome.as_dict())
    with (SCRATCH / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(outcome.as_dict(), sort_keys=True) + "\n")
