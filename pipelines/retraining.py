"""One retraining, from the inbox to the alias: what the Prefect flow runs, without Prefect.

    inbox -> examined -> drift -> taken in, or set aside -> DVC's graph -> gate -> champion, or rejected

Every step can be repeated, and looks at what is there first: a run that was killed anywhere is finished by the next.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from PIL import Image

from lapcvae.config import load, read_params
from lapcvae.data import inbox
from lapcvae.data.taken import batches
from lapcvae.errors import PipelineError, RegistryError
from lapcvae.io.atomic import atomic_folder, read_json, write_json
from lapcvae.registry import crashed, models, promotion, spool, tracking
from pipelines import champion_weights, contest, dvc_runner, dvc_state, intake, journal
from pipelines.journal import SCRATCH
from pipelines.outcome import Outcome, RetrainConfig, RunStage, Say

RECORD, PICTURES = Path("reports/retraining.json"), Path("reports/gate")


def retrain(run_stage: RunStage, say: Say = print) -> Outcome:
    """Do one retraining; the caller holds `journal.one_at_a_time`. Raises what the stages and the gate raise."""
    config = load(RetrainConfig, "retrain")
    deadline = time.monotonic() + config.deadline_s
    outcome = Outcome()

    def tell(line: str) -> None:
        outcome.lines.append(line)
        say(line)

    os.environ[tracking.GATED] = "1"
    journal.enter("look after")
    reachable = _look_after(tell)
    journal.enter("intake")
    batch = intake.examine(config, outcome, tell, reachable)
    if batch is not None:
        journal.enter("validate")
        batch = intake.take(batch, config, outcome, run_stage, deadline, tell)
    journal.enter("train")
    if _is_enough(config, outcome, tell):
        if not dvc_runner.is_up_to_date():
            journal.enter("first weights")
            champion_weights.lay_out(config.warm_start, tell)
            for stage in dvc_runner.stages():
                journal.enter(f"stage {stage}")
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
        journal.enter("gate")
        _gate(outcome, tell)
        _note_trained()
    _finish(outcome)
    return outcome


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
        return True
    except models.DamagedVersionError:
        raise
    except RegistryError as error:
        tell(f"MLflow is away: {error}")
        return False


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
    journal.enter("record")
    with atomic_folder(PICTURES) as folder:
        for name, picture in (outcome.contest.pictures if outcome.contest else {}).items():
            Image.fromarray(picture).save(folder / f"{name}.png")
    write_json(RECORD, outcome.as_dict())
    with (SCRATCH / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(outcome.as_dict(), sort_keys=True) + "\n")
