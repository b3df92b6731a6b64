"""Prefect's server: whether it is there, what became of earlier runs, runs that were missed while nobody worked."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
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
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectException, PrefectHTTPStatusError
from prefect.settings import get_current_settings
from prefect.states import Cancelled, Crashed
from prefect.types import DateTime

T = TypeVar("T")
AWAY = (httpx.TransportError, PrefectHTTPStatusError)
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


def mark_crashed(flow_run_id: str, why: str) -> None:
    """Tell the server that a flow run, which it takes to be running, is dead. A run it does not know is none of its."""

    def tell() -> None:
        with get_client(sync_client=True) as client:
            found = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)])))
            if found and found[0].state and not found[0].state.is_final():
                client.set_flow_run_state(found[0].id, Crashed(message=why), force=True)

    try:
        UUID(flow_run_id)
    except ValueError:
        return
    unless_away(tell, lambda: None)


def cancel_missed(flow_run_id: str) -> int:
    """Cancel runs of the same deployment whose time has passed before this one began; how many.

    A worker that was away for three weeks finds three late runs; the first does the work of all.
    """

    def cancel() -> int:
        with get_client(sync_client=True) as client:
            own = client.read_flow_run(UUID(flow_run_id))
            if own.deployment_id is None:
                return 0
            missed = [run for run in _scheduled(client, own.deployment_id) if run != own.id]
            for run in missed:
                client.set_flow_run_state(run, Cancelled(message=f"caught up by {own.name}"), force=True)
            return len(missed)

    return unless_away(cancel, lambda: 0)


def _scheduled(client: SyncPrefectClient, deployment: UUID) -> list[UUID]:
    late = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        expected_start_time=FlowRunFilterExpectedStartTime(before_=DateTime.now("UTC")),
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
