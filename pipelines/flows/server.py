"""Prefect's server: whether it is there, what became of earlier runs, runs that were missed while nobody worked."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

import httpx
import numpy as np
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectException, PrefectHTTPStatusError
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Crashed, State

T = TypeVar("T")
AWAY = (httpx.TransportError, PrefectHTTPStatusError)
_GOING_ON = TaskRunFilter(
    state=TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING]))
)
_PICTURE_BYTES = 400_000  # of one shown inside Prefect's page


def is_wanted_and_away() -> bool:
    """Whether the settings name a server (`PREFECT_API_URL`) that does not answer. Unset, Prefect starts its own."""
    address = get_current_settings().api.url
    if not address:
        return False
    try:
        return httpx.get(f"{address.rstrip('/')}/health", timeout=5, trust_env=False).status_code != httpx.codes.OK
    except httpx.HTTPError:
        return True


def unless_away(wanted: Callable[[], T], instead: Callable[[], T]) -> T:
    """Do what is wanted; where Prefect's server has gone away amid it, do the other thing."""
    try:
        return wanted()
    except AWAY:
        return instead()
    except (PrefectException, RuntimeError) as error:
        if not any(isinstance(cause, AWAY) for cause in (error.__cause__, error.__context__)):
            raise
        return instead()


def end(flow_run_id: str, state: State[None]) -> bool | None:
    """Give a flow run that the server takes to be going on, and its tasks, this final state; whether it was so.

    A run that was completed while the server was away is taken to have failed, once it is back: Prefect could not say
    otherwise. That is put right too. False too for a run that the server does not know; None where it is away.
    """

    def tell() -> bool:
        with get_client(sync_client=True) as client:
            runs = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
            found = client.read_flow_runs(flow_run_filter=runs)
            if not found or not found[0].state:
                return False
            known = found[0].state
            misjudged = state.is_completed() and known.type in (StateType.FAILED, StateType.CRASHED)
            if known.is_final() and not misjudged:
                return False
            for task in client.read_task_runs(flow_run_filter=runs, task_run_filter=_GOING_ON):
                client.set_task_run_state(task.id, Crashed(message="its flow run is gone"), force=True)
            client.set_flow_run_state(found[0].id, state, force=True)
            return True

    return unless_away(tell, lambda: None)


def cancel_missed(flow_run_id: str) -> int:
    """Cancel runs of the same deployment whose time has passed and that have not begun; how many.

    A worker that was away for three weeks finds three late runs; the first does the work of all. One that was killed
    after it had taken a run, and before it began it, leaves it pending.
    """

    def cancel() -> int:
        with get_client(sync_client=True) as client:
            own = client.read_flow_run(UUID(flow_run_id))
            if own.deployment_id is None:
                return 0
            missed = [run for run in _waiting(client, own.deployment_id) if run != own.id]
            for run in missed:
                client.set_flow_run_state(run, Cancelled(message=f"caught up by {own.name}"), force=True)
            return len(missed)

    return unless_away(cancel, lambda: 0)


def _waiting(client: SyncPrefectClient, deployment: UUID) -> list[UUID]:
    late = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING])),
        # Checked by Prefect, whose own type of time differs between its versions and Python's.
        expected_start_time=FlowRunFilterExpectedStartTime.model_validate({"before_": datetime.now(UTC)}),
    )
    return [run.id for run in client.read_flow_runs(flow_run_filter=late)]


def picture_addresses(pictures: dict[str, np.ndarray]) -> dict[str, str]:
    """Pictures (H W 3 uint8) as addresses that hold the picture itself, so the page needs no other server."""
    from PIL import Image

    found = {}
    for name, picture in pictures.items():
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "PNG")
        if stream.tell() > _PICTURE_BYTES:
            stream = io.BytesIO()
            Image.fromarray(picture).save(stream, "JPEG", quality=80)
        found[name] = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return found
