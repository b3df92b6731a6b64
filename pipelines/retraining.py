"""One retraining, from the inbox to the alias: what the Prefect flow runs, without Prefect.

    inbox -> examined -> drift -> taken in, or set aside -> DVC's graph -> gate -> champion, or rejected

Every step can be repeated, and looks at what is there first: a run that was killed anywhere is finished by the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from PIL import Image

from lapcvae.config import load, read_params
from lapcvae.data import inbox
from lapcvae.data.taken import batches
from lapcvae.errors import LapcvaeError, PipelineError, RegistryError
from lapcvae.io.atomic import atomic_folder, read_json, write_json
from lapcvae.registry import crashed, models, promotion, spool, tracking
from pipelines import champion_weights, contest, dvc_runner, dvc_state, intake, journal, remote
from pipelines.deadline import kept
from pipelines.journal import SCRATCH
from pipelines.outcome import Outcome, RetrainConfig, RunStage, Say

RECORD, PICTURES = Path("reports/retraining.json"), Path("reports/gate")
REGISTERED = Path("reports/registered.json")  # what `register` leaves


def retrain(run_stage: RunStage, say: Say = print) -> Outcome:
    """Do one retraining; the caller holds `journal.one_at_a_time`. Raises what the stages and the gate raise, after it
    has put it on record.
    """
    config = load(RetrainConfig, "retrain")
    outcome = Outcome()

    def tell(line: str) -> None:
        outcome.lines.append(line)
        say(line)

    os.environ[tracking.GATED] = "1"
    try:
        _retrain(config, outcome, run_stage, tell)
    except Exception as error:
        outcome.status = "failed"
        tell(f"failed in phase `{journal.phase()}`: {str(error) or type(error).__name__}")
        with contextlib.suppress(OSError, LapcvaeError):  # a full disk: the error itself must be heard
            _put_on_record(outcome)
        raise
    journal.enter("record")
    _put_on_record(outcome)
    return outcome


def _retrain(config: RetrainConfig, outcome: Outcome, run_stage: RunStage, tell: Say) -> None:
    deadline = time.monotonic() + config.deadline_s
    journal.enter("look after")
    with kept(deadline, "looking after what is there"):
        reachable = _look_after(tell)
    journal.enter("intake")
    with kept(deadline, "examining the batch"):
        batch = intake.examine(config, outcome, tell, reachable)
    if batch is not None:
        journal.enter("validate")
        intake.take(batch, config, outcome, run_stage, deadline, tell)
    journal.enter("train")
    if not _is_enough(config, outcome, tell):
        remote.push(tell)
        return
    journal.enter("stage source")
    run_stage("source", deadline)  # what it leaves tells DVC whether the source is another
    if not dvc_runner.is_up_to_date():
        journal.enter("first weights")
        with kept(deadline, "laying out first weights"):
            champion_weights.lay_out(config.warm_start, tell)
        for stage in dvc_runner.stages():
            journal.enter(f"stage {stage}")
            try:
                run_stage(stage, deadline)
            except PipelineError as error:
                if stage == "register" and "MLflow" in str(error):
                    outcome.status = "postponed"
                    tell("trained; MLflow is away, so registering and the gate are left to the next run")
                    return
                raise
            outcome.ran.append(stage)
        remote.mark()
    journal.enter("gate")
    with kept(deadline, "the gate"):
        _gate(outcome, tell)
    _note_trained()
    remote.push(tell)


def _look_after(tell: Say) -> bool:
    """Mend what earlier runs and accidents left; whether MLflow can be reached."""
    dvc_state.release_stale_locks(tell)
    for note in dvc_state.set_aside_damaged_notes(tell):
        if note.suffix == ".dvc" and note.with_suffix("").exists():
            dvc_runner.add(note.with_suffix(""), tell)
    dvc_state.remove_damaged(tell)
    for note in dvc_state.notes():
        if not note.with_suffix("").exists():
            dvc_runner.restore(note.with_suffix(""), tell)
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
        if REGISTERED.exists() and promotion.standing(tracked.model).current is None:
            REGISTERED.unlink()  # with it DVC finds the stage due
            tell("registry: it does not have the present models; they are registered again")
        return True
    except models.DamagedVersionError:
        raise
    except RegistryError as error:
        tell(f"MLflow is away: {error}")
        return False


def _is_enough(config: RetrainConfig, outcome: Outcome, tell: Say) -> bool:
    """Whether to train: unless all that changed is that a few photographs came."""
    if not REGISTERED.exists():
        return True
    waiting = inbox.taken_count() - _trained().get("new", 0)
    if not 0 < waiting < config.min_new or _trained().get("params") != _params():
        return True
    if any((read_json(record).get("drift") or {}).get("verdict") == "notice" for record in _new_batches()):
        tell("drift: trained on at once")
        return True
    outcome.status = "waiting"
    tell(f"{waiting} new photographs since the last training; the next is at {config.min_new} (`retrain.min_new`)")
    return False


def _new_batches() -> list[Path]:
    """Records of the batches taken in since the last training, by this run or by earlier ones that were killed."""
    new = batches()[_trained().get("batches", 0) :]
    return [inbox.BATCHES / f"{tar.name.partition('-')[0]}.json" for tar in new]


def _trained() -> dict[str, Any]:
    path = SCRATCH / "trained.json"
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    return found


def _params() -> str:
    """Digest of the parameters that decide what comes out of training."""
    return models.params_digest({key: part for key, part in read_params().items() if key not in ("retrain", "gate")})


def _note_trained() -> None:
    write_json(
        SCRATCH / "trained.json",
        {"new": inbox.taken_count(), "params": _params(), "batches": len(batches())},
    )


def _gate(outcome: Outcome, tell: Say) -> None:
    name = tracking.read_config().model
    try:
        if not contest.is_due(name):
            now = promotion.standing(name)
            tell(f"nothing new and nothing changed; champion is version {now.champion}")
            return
        held = contest.hold(_new_batches())
    except models.DamagedVersionError:
        raise
    except RegistryError as error:
        outcome.status = "postponed"
        tell(f"the gate is left to the next run: {error}")
        return
    outcome.contest, outcome.status = held, held.verdict.decision
    decided = f"version {held.challenger} {held.verdict.decision}: {held.verdict.reason}"
    tell(f"gate: {decided}; champion is version {held.now}")


def _put_on_record(outcome: Outcome) -> None:
    """Leave the record of this run, and add it to the list of all."""
    with atomic_folder(PICTURES) as folder:
        for name, picture in (outcome.contest.pictures if outcome.contest else {}).items():
            Image.fromarray(picture).save(folder / f"{name}.png")
    write_json(RECORD, outcome.as_dict())
    with (SCRATCH / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(outcome.as_dict(), sort_keys=True) + "\n")
